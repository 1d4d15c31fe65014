//! The page, read back by a parser that takes nothing which the format does not allow.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

/// A metric as it was read: its kind, and its samples by what stands before the value.
type Metrics = BTreeMap<String, (String, BTreeMap<String, f64>)>;

/// Reads a whole page; a panic says what is wrong with it.
fn parse(text: &str) -> Metrics {
    assert!(text.ends_with('\n') && !text.contains("\n\n"), "{text:?}");
    let mut metrics = Metrics::new();
    let mut helped = None;
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(help.ends_with('.'), "{line}");
            helped = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a kind");
            assert_eq!(helped.take().as_deref(), Some(name), "HELP before TYPE");
            check_name(name);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let before = metrics.insert(name.to_owned(), (kind.to_owned(), BTreeMap::new()));
            assert!(before.is_none(), "{name} stands twice");
            name.clone_into(&mut current);
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let value: f64 = value.parse().expect("a number");
            assert!(value.is_finite() && value >= 0.0, "{line}");
            let (kind, samples) = metrics.get_mut(&current).expect("TYPE before samples");
            check_series(series, &current, kind);
            assert!(samples.insert(series.to_owned(), value).is_none(), "{line}");
        }
    }
    metrics
}

fn check_name(name: &str) {
    assert!(name.starts_with("mcp_broker_"), "{name}");
    let is_fine = |c: char| c.is_ascii_lowercase() || c == '_';
    assert!(name.chars().all(is_fine), "{name}");
}

fn check_series(series: &str, metric: &str, kind: &str) {
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect("a closing brace")),
        None => (series, ""),
    };
    let suffix = name.strip_prefix(metric).expect("the metric's own sample");
    match kind {
        "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{series}"),
        "counter" | "gauge" => assert_eq!(suffix, "", "{series}"),
        _ => panic!("no such kind: {kind}"),
    }
    let mut rest = labels;
    while !rest.is_empty() {
        let (label, value) = rest.split_once("=\"").expect("a label");
        assert!(label.chars().all(|c| c.is_ascii_lowercase()), "{series}");
        let end = closing_quote(value);
        rest = &value[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

fn closing_quote(value: &str) -> usize {
    let mut escaped = false;
    for (at, c) in value.char_indices() {
        match c {
            _ if escaped => {
                assert!(matches!(c, '\\' | '"' | 'n'), "{value}");
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    panic!("no closing quote: {value}");
}

#[test]
fn all_that_is_counted_is_written_well() {
    super::super::SESSIONS_OPENED.add(2);
    super::super::SESSIONS_ENDED.add(super::super::EndCause::Fault);
    super::super::HTTP_REQUESTS.add(Method::Other, StatusClass::of(503));
    let mut page = Page::default();
    super::super::write(&mut page);
    let metrics = parse(&page.into_text());
    let value = |metric: &str, series: &str| metrics[metric].1[series];
    let opened = "mcp_broker_sessions_opened_total";
    assert!(value(opened, opened) >= 2.0);
    let ended = "mcp_broker_sessions_ended_total";
    assert!(value(ended, &format!("{ended}{{cause=\"fault\"}}")) >= 1.0);
    let requests = "mcp_broker_http_requests_total";
    let series = format!("{requests}{{method=\"other\",status=\"5xx\"}}");
    assert!(value(requests, &series) >= 1.0);
    assert_eq!(metrics[ended].1.len(), 11, "all causes, also those unseen");
    assert_eq!(metrics[requests].1.len(), 20);
}

#[test]
fn buckets_hold_what_is_not_longer_than_their_bound() {
    let histogram = Histogram::new();
    for micros in [0, 250, 251, 1_000, 30_000_000, 31_000_000] {
        histogram.observe(Duration::from_micros(micros));
    }
    let mut page = Page::default();
    page.histogram("x_seconds", "Help.", &histogram);
    let (kind, samples) = parse(&page.into_text())
        .remove("mcp_broker_x_seconds")
        .expect("the metric");
    assert_eq!(kind, "histogram");
    let bucket = |le: &str| samples[&format!("mcp_broker_x_seconds_bucket{{le=\"{le}\"}}")];
    for (le, count) in [
        ("0.00025", 2.0),
        ("0.0005", 3.0),
        ("0.001", 4.0),
        ("10", 4.0),
        ("30", 5.0),
        ("+Inf", 6.0),
    ] {
        assert_eq!(bucket(le), count, "{le}");
    }
    assert_eq!(samples["mcp_broker_x_seconds_count"], 6.0);
    assert!((samples["mcp_broker_x_seconds_sum"] - 61.001_501).abs() < 1e-9);
}

#[test]
fn values_of_labels_are_escaped() {
    let mut page = Page::default();
    page.gauges("x", "Help.", "a", [("q\"b\\n\nl", 1)]);
    let text = page.into_text();
    assert!(
        text.ends_with("mcp_broker_x{a=\"q\\\"b\\\\n\\nl\"} 1\n"),
        "{text}"
    );
    parse(&text);
}
