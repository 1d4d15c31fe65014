//! Signing in: ties the rules of `oauth`, the rows of `store` and the provider of `upstream`
//! together.
