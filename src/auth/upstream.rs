//! The provider that users sign in with: Forgejo, Gitea, or any other by OpenID Connect.
