//! The rules of the broker's own authorization server (OAuth 2.1): pure, time is passed in.
