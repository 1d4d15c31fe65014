use crate::config::Server;
use crate::isolation::Home;
use crate::supervisor::Launch;
pub(crate) struct Eras;
impl Eras {
    pub(crate) fn open(_: &crate::config::Config, _: crate::supervisor::Nursery) -> Self {
        Self
    }
    pub(crate) fn stop(&self) {}

    pub(crate) fn speaks_modern(
        &self,
        server: &Server,
        _start: impl Fn() -> Result<(Launch, Home), String>,
    ) -> bool {
        server.name.contains("modern") || server.name.contains("dual")
    }
    pub(crate) fn is_modern_only(&self, _server: &Server) -> bool {
        false
    }
    pub(crate) fn learned_modern_only(&self, _server: &Server) {}
}
