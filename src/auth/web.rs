//! Outgoing requests over HTTPS: bounded, timed, and never to where they must not go.
