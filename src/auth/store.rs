//! What must survive a restart of those who signed in: an SQLite database in the state directory.
