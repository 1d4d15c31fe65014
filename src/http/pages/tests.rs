//! Pages as they are sent.
