//! What a client can be asked for: per request in the modern era.

use crate::jsonrpc::member;

/// Capabilities of a client as far as a legacy child can need them (2026-07-28, schema,
/// `ClientCapabilities`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) form: bool,
    pub(super) url: bool,
    pub(super) sampling: bool,
    pub(super) sampling_tools: bool,
    pub(super) sampling_context: bool,
    pub(super) roots: bool,
}

impl Capabilities {
    /// Reads `io.modelcontextprotocol/clientCapabilities`.
    pub(super) fn read(declared: &str) -> Self {
        let elicitation = object(declared, "elicitation");
        let sampling = object(declared, "sampling");
        let has =
            |object_: Option<&str>, name| object_.is_some_and(|it| object(it, name).is_some());
        let url = has(elicitation, "url");
        Self {
            // 2026-07-28, elicitation, "Capabilities": an empty object stands for form mode only.
            form: elicitation.is_some() && (has(elicitation, "form") || !url),
            url,
            sampling: sampling.is_some(),
            sampling_tools: has(sampling, "tools"),
            sampling_context: has(sampling, "context"),
            roots: object(declared, "roots").is_some(),
        }
    }

    pub(super) fn include(self, need: Self) -> bool {
        self.and(need) == self
    }

    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            form: self.form || other.form,
            url: self.url || other.url,
            sampling: self.sampling || other.sampling,
            sampling_tools: self.sampling_tools || other.sampling_tools,
            sampling_context: self.sampling_context || other.sampling_context,
            roots: self.roots || other.roots,
        }
    }

    /// What of these is not among the others.
    pub(super) fn without(self, other: Self) -> Self {
        Self {
            form: self.form && !other.form,
            url: self.url && !other.url,
            sampling: self.sampling && !other.sampling,
            sampling_tools: self.sampling_tools && !other.sampling_tools,
            sampling_context: self.sampling_context && !other.sampling_context,
            roots: self.roots && !other.roots,
        }
    }

    /// As a client declares them.
    pub(super) fn to_json(self) -> String {
        let group = |name: &str, is_there: bool, parts: &[(&str, bool)]| {
            let parts: Vec<_> = parts
                .iter()
                .filter(|(_, is_there)| *is_there)
                .map(|(name, _)| format!(r#""{name}":{{}}"#))
                .collect();
            is_there.then(|| format!(r#""{name}":{{{}}}"#, parts.join(",")))
        };
        let modes = [("form", self.form), ("url", self.url)];
        let sampling = [
            ("tools", self.sampling_tools),
            ("context", self.sampling_context),
        ];
        let samples = self.sampling || self.sampling_tools || self.sampling_context;
        let groups = [
            group("roots", self.roots, &[]),
            group("sampling", samples, &sampling),
            group("elicitation", self.form || self.url, &modes),
        ];
        let groups: Vec<_> = groups.into_iter().flatten().collect();
        format!("{{{}}}", groups.join(","))
    }
}

fn object<'a>(of: &'a str, name: &str) -> Option<&'a str> {
    member(of, name).filter(|it| it.starts_with('{'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_client_declares() {
        let check = |declared: &str, json: &str| {
            assert_eq!(Capabilities::read(declared).to_json(), json, "{declared}");
        };
        check("{}", "{}");
        check("[1]", "{}");
        check(r#"{"elicitation":{}}"#, r#"{"elicitation":{"form":{}}}"#);
        check(
            r#"{"elicitation":{"url":{}}}"#,
            r#"{"elicitation":{"url":{}}}"#,
        );
        check(
            r#"{"elicitation":{"url":{},"form":{"x":1}},"roots":{"listChanged":true}}"#,
            r#"{"roots":{},"elicitation":{"form":{},"url":{}}}"#,
        );
        check(r#"{"elicitation":null,"roots":false}"#, "{}");
        check(
            r#"{"sampling":{"context":{}},"experimental":{"roots":{}}}"#,
            r#"{"sampling":{"context":{}}}"#,
        );
    }

    #[test]
    fn tells_what_is_missing() {
        let can = Capabilities::read(r#"{"elicitation":{},"sampling":{}}"#);
        let need = |declared| Capabilities::read(declared);
        assert!(can.include(need("{}")));
        assert!(can.include(need(r#"{"elicitation":{"form":{}}}"#)));
        assert!(!can.include(need(r#"{"elicitation":{"url":{}}}"#)));
        assert!(!can.include(need(r#"{"sampling":{"tools":{}}}"#)));
        assert!(!can.include(need(r#"{"roots":{}}"#)));
        let missing = need(r#"{"sampling":{"tools":{}},"roots":{}}"#).without(can);
        assert_eq!(missing.to_json(), r#"{"roots":{},"sampling":{"tools":{}}}"#);
    }
}
