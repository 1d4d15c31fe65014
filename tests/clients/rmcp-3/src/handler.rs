//! What the client answers when it is asked, and where it keeps what it is told.

use std::sync::{Arc, Mutex, PoisonError};

use rmcp::ClientHandler;
use rmcp::model::{
    ClientCapabilities, ClientConfig, CreateMessageRequestParams, CreateMessageResult,
    ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationCapability, ErrorData,
    Implementation, ListRootsResult, LoggingMessageNotificationParam, ProgressNotificationParam,
    ResourceUpdatedNotificationParam, Root, RootsCapabilities, SamplingMessage, ServerNotification,
};
use rmcp::service::{NotificationContext, RequestContext, RoleClient};
use serde_json::{Map, Value};
use tokio::sync::Notify;

const PAGE: &str = "https://example.org/tour";

/// What came in, and a way to wait until there are `n` of it.
#[derive(Clone, Default)]
pub struct Inbox(Arc<(Mutex<Vec<Value>>, Notify)>);

impl Inbox {
    fn put(&self, item: impl Into<Value>) {
        self.0
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(item.into());
        self.0.1.notify_waiters();
    }

    pub fn seen(&self) -> Vec<Value> {
        self.0
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub async fn reached(&self, n: usize) -> Vec<Value> {
        loop {
            let more = self.0.1.notified();
            let seen = self.seen();
            if seen.len() >= n {
                return seen;
            }
            more.await;
        }
    }
}

/// The client's side of the conversation.
#[derive(Clone, Default)]
pub struct Handler {
    pub progress: Inbox,
    pub logs: Inbox,
    pub updates: Inbox,
    pub tool_changes: Inbox,
    pub prompt_changes: Inbox,
}

impl Handler {
    /// What came on a subscription, which the SDK does not hand to the methods below.
    pub fn told(&self, notification: ServerNotification) {
        match notification {
            ServerNotification::ResourceUpdatedNotification(updated) => {
                self.updates.put(updated.params.uri)
            }
            ServerNotification::ToolListChangedNotification(_) => self.tool_changes.put(true),
            ServerNotification::PromptListChangedNotification(_) => self.prompt_changes.put(true),
            _ => {}
        }
    }
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        let mut roots = RootsCapabilities::default();
        roots.list_changed = Some(true);
        let mut elicitation = ElicitationCapability::new();
        elicitation.form = Some(Default::default());
        elicitation.url = Some(Default::default());
        let mut capabilities = ClientCapabilities::default();
        capabilities.sampling = Some(Default::default());
        capabilities.elicitation = Some(elicitation);
        capabilities.roots = Some(roots);
        ClientConfig::new(capabilities, Implementation::new("tour", "1.0.0"))
    }

    async fn create_message(
        &self,
        _params: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let message = SamplingMessage::assistant_text("sampled by the tour");
        Ok(CreateMessageResult::new(message, "none".to_owned()))
    }

    async fn list_roots(
        &self,
        _context: RequestContext<RoleClient>,
    ) -> Result<ListRootsResult, ErrorData> {
        Ok(ListRootsResult::new(vec![
            Root::new("file:///tour-root").with_name("tour"),
        ]))
    }

    async fn create_elicitation(
        &self,
        params: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let requested_schema = match params {
            ElicitRequestParams::FormElicitationParams {
                requested_schema, ..
            } => requested_schema,
            ElicitRequestParams::UrlElicitationParams { url, .. } if url == PAGE => {
                return Ok(ElicitResult::new(ElicitationAction::Accept));
            }
            _ => return Ok(ElicitResult::new(ElicitationAction::Decline)),
        };
        let names = requested_schema.properties.into_keys();
        let content: Map<String, Value> = names
            .map(|name| (name.clone(), format!("tour-{name}").into()))
            .collect();
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(content.into()))
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.progress.put(params.progress);
    }

    async fn on_logging_message(
        &self,
        params: LoggingMessageNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.logs
            .put(serde_json::to_value(params.level).unwrap_or_default());
    }

    async fn on_resource_updated(
        &self,
        params: ResourceUpdatedNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.updates.put(params.uri);
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.tool_changes.put(true);
    }

    async fn on_prompt_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.prompt_changes.put(true);
    }
}
