//! The text exposition format of Prometheus, version 0.0.4: `# HELP` and `# TYPE` once a metric,
//! then one line a sample.

use std::fmt::{Display, Write};

use super::{BUCKETS, Counter, Family, Histogram, Label, Method, Requests, StatusClass};

/// Stands before every name.
const PREFIX: &str = "mcp_broker_";

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The page that is being written.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    /// What goes out as `Content-Type`.
    pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    pub(crate) fn into_text(self) -> String {
        self.0
    }

    /// Begins a metric; its samples follow.
    pub(crate) fn head(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.put(format_args!("# HELP {PREFIX}{name} {help}\n"));
        self.put(format_args!("# TYPE {PREFIX}{name} {kind}\n"));
    }

    /// One line.
    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.put(format_args!("{PREFIX}{name}"));
        for (no, (label, text)) in labels.iter().enumerate() {
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let opening = if no == 0 { '{' } else { ',' };
            self.put(format_args!("{opening}{label}=\"{text}\""));
        }
        let closing = if labels.is_empty() { "" } else { "}" };
        self.put(format_args!("{closing} {value}\n"));
    }

    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, Kind::Gauge, help);
        self.sample(name, &[], value);
    }

    /// A gauge with a sample for each value of a label.
    pub(crate) fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.head(name, Kind::Gauge, help);
        for (text, value) in samples {
            self.sample(name, &[(label, text)], value);
        }
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        self.head(name, Kind::Counter, help);
        self.sample(name, &[], counter.get());
    }

    pub(super) fn family<L: Label>(&mut self, name: &str, help: &str, family: &Family<L>) {
        self.head(name, Kind::Counter, help);
        for (text, value) in family.each() {
            self.sample(name, &[(L::NAME, text)], value);
        }
    }

    pub(super) fn requests(&mut self, name: &str, help: &str, requests: &Requests) {
        self.head(name, Kind::Counter, help);
        for (family, (_, method)) in requests.0.iter().zip(Method::VALUES) {
            for (class, value) in family.each() {
                let labels = [(Method::NAME, *method), (StatusClass::NAME, class)];
                self.sample(name, &labels, value);
            }
        }
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, Kind::Histogram, help);
        let bounds = BUCKETS.iter().map(ToString::to_string);
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        for (bound, counter) in bounds.chain(["+Inf".to_owned()]).zip(&histogram.buckets) {
            count += counter.get();
            self.sample(&bucket, &[("le", &bound)], count);
        }
        let sum = std::time::Duration::from_nanos(histogram.sum_ns.get());
        self.sample(&format!("{name}_sum"), &[], sum.as_secs_f64());
        self.sample(&format!("{name}_count"), &[], count);
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.0.write_fmt(text);
    }
}

#[cfg(test)]
mod tests;
