//! What a modern child wants to know of the client: requests of 2025-11-25 from `inputRequests` of
//! 2026-07-28.

use super::caller::is_object;
use crate::jsonrpc::{self, Edit, members};
use crate::mcp::method;

/// Of one round.
const MAX_QUESTIONS: usize = 64;

/// `inputRequests` of a result; `None` if there are none.
///
/// # Errors
/// Why they cannot be put to the client, not even one of them.
pub(super) fn read<'a>(
    result: &'a str,
    capabilities: &str,
) -> Result<Option<Vec<(&'a str, Question<'a>)>>, String> {
    let Some(requests) = present(result, "inputRequests") else {
        return Ok(None);
    };
    if !is_object(requests) {
        return Err("the server's inputRequests are no object".to_owned());
    }
    let requests = members(requests);
    if requests.len() > MAX_QUESTIONS {
        return Err(format!(
            "the server asks more than {MAX_QUESTIONS} questions at once"
        ));
    }
    let mut questions: Vec<(&str, Question<'_>)> = Vec::new();
    for request in requests {
        if questions.iter().any(|(key, _)| *key == request.key) {
            return Err(format!("the server asks {} twice", request.key));
        }
        let question = Question::read(request.value, capabilities)
            .map_err(|why| format!("the server cannot be answered: {why}"))?;
        questions.push((request.key, question));
    }
    Ok(Some(questions))
}

/// A member that says something.
pub(super) fn present<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    jsonrpc::member(object, name).filter(|value| *value != "null")
}

/// One of `inputRequests` that can be put to the client. 2026-07-28, mrtr, "Server Requirements
/// (Basic Workflow)".
pub(super) struct Question<'a> {
    pub(super) method: &'static str,
    params: Option<&'a str>,
}

impl<'a> Question<'a> {
    /// # Errors
    /// Why the client cannot be asked that; the child should have known.
    fn read(request: &'a str, capabilities: &str) -> Result<Self, String> {
        let wanted = jsonrpc::member(request, "method").and_then(jsonrpc::text);
        let wanted = wanted.unwrap_or_default();
        let known = [method::ELICIT, method::SAMPLE, method::ROOTS];
        let Some(method) = known.into_iter().find(|known| wanted == *known) else {
            return Err(format!("a question may not be {wanted:?}"));
        };
        let params = jsonrpc::member(request, "params").filter(|it| is_object(it));
        if params.is_none() && method != method::ROOTS {
            return Err(format!("its {method} has no params"));
        }
        let question = Self { method, params };
        let (capability, feature) = question.needs();
        if is_declared(capabilities, capability, feature) {
            return Ok(question);
        }
        let feature = feature.map_or(String::new(), |it| format!(".{it}"));
        Err(format!(
            "its {method} needs {capability}{feature}, which the client has not declared"
        ))
    }

    /// The client capability, and the part of it, that the question needs. 2026-07-28, elicitation
    /// and sampling, "Capabilities".
    fn needs(&self) -> (&'static str, Option<&'static str>) {
        match self.method {
            method::ELICIT if self.is_url() => ("elicitation", Some("url")),
            method::ELICIT => ("elicitation", Some("form")),
            method::SAMPLE if self.has("tools") || self.has("toolChoice") => {
                ("sampling", Some("tools"))
            }
            method::SAMPLE => ("sampling", None),
            _ => ("roots", None),
        }
    }

    /// The request to the client, under an id of ours; `params` are as they came.
    pub(super) fn line(&self, id: &str) -> String {
        let method = self.method;
        let params = match self.params {
            // 2025-11-25, elicitation, "URL Mode Elicitation Requests": every one has an id, which
            // 2026-07-28 has done away with.
            Some(params) if self.is_url() && !self.has("elicitationId") => Edit::of(params)
                .put(params, &[("elicitationId", id)])
                .done(),
            Some(params) => params.to_owned(),
            None => {
                return format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"}}"#);
            }
        };
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
    }

    fn is_url(&self) -> bool {
        let mode = self
            .params
            .and_then(|params| jsonrpc::member(params, "mode"));
        self.method == method::ELICIT && mode.and_then(jsonrpc::text).as_deref() == Some("url")
    }

    fn has(&self, name: &str) -> bool {
        self.params
            .is_some_and(|it| jsonrpc::member(it, name).is_some())
    }
}

/// Whether a client has declared a capability, or a part of it.
fn is_declared(capabilities: &str, name: &str, feature: Option<&str>) -> bool {
    let declared = |object, name| jsonrpc::member(object, name).filter(|it| is_object(it));
    let Some(capability) = declared(capabilities, name) else {
        return false;
    };
    match feature {
        None => true,
        // 2026-07-28, elicitation, "Capabilities": nothing named is form mode only.
        Some("form") if declared(capability, "url").is_none() => true,
        Some(feature) => declared(capability, feature).is_some(),
    }
}
