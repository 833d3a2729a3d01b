//! What Prometheus would scrape, as metrics of OTLP.
//!
//! The text is the agent's own: what is sent cannot say anything else than what is scraped.

use prost::{Message, Oneof};

use super::{
    encode::{pair, scope},
    message::{KeyValue, Resource, Scope, Value},
};

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportMetricsRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeMetrics {
    #[prost(message, optional, tag = "1")]
    pub(super) scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub(super) metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Metric {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) description: String,
    #[prost(string, tag = "3")]
    pub(super) unit: String,
    #[prost(oneof = "Data", tags = "5, 7, 9")]
    pub(super) data: Option<Data>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Data {
    #[prost(message, tag = "5")]
    Gauge(Gauge),
    #[prost(message, tag = "7")]
    Sum(Sum),
    #[prost(message, tag = "9")]
    Histogram(Histogram),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Gauge {
    #[prost(message, repeated, tag = "1")]
    pub(super) data_points: Vec<Number>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Sum {
    #[prost(message, repeated, tag = "1")]
    pub(super) data_points: Vec<Number>,
    #[prost(enumeration = "Temporality", tag = "2")]
    pub(super) aggregation_temporality: i32,
    #[prost(bool, tag = "3")]
    pub(super) is_monotonic: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Histogram {
    #[prost(message, repeated, tag = "1")]
    pub(super) data_points: Vec<Buckets>,
    #[prost(enumeration = "Temporality", tag = "2")]
    pub(super) aggregation_temporality: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Temporality {
    Unspecified = 0,
    Cumulative = 2,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Number {
    #[prost(fixed64, tag = "3")]
    pub(super) time_unix_nano: u64,
    #[prost(oneof = "Amount", tags = "4, 6")]
    pub(super) value: Option<Amount>,
    #[prost(message, repeated, tag = "7")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Clone, Copy, PartialEq, Oneof)]
pub(super) enum Amount {
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(sfixed64, tag = "6")]
    Int(i64),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Buckets {
    #[prost(fixed64, tag = "3")]
    pub(super) time_unix_nano: u64,
    #[prost(fixed64, tag = "4")]
    pub(super) count: u64,
    #[prost(double, optional, tag = "5")]
    pub(super) sum: Option<f64>,
    /// One more than there are bounds.
    #[prost(fixed64, repeated, tag = "6")]
    pub(super) bucket_counts: Vec<u64>,
    #[prost(double, repeated, tag = "7")]
    pub(super) explicit_bounds: Vec<f64>,
}

/// Bytes of one request, or as many as one metric has.
const MOST: usize = 1 << 20;

/// As few requests as there may be, of the size that all take.
pub(super) fn requests(text: &str, resource: &Resource, now: u64) -> Vec<ExportMetricsRequest> {
    let mut requests = Vec::new();
    let mut size = 0;
    let mut together = Vec::new();
    for metric in metrics(text, now) {
        size += metric.encoded_len();
        if size > MOST && !together.is_empty() {
            requests.push(request(std::mem::take(&mut together), resource));
            size = metric.encoded_len();
        }
        together.push(metric);
    }
    if !together.is_empty() {
        requests.push(request(together, resource));
    }
    requests
}

fn request(metrics: Vec<Metric>, resource: &Resource) -> ExportMetricsRequest {
    ExportMetricsRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource.clone()),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope()),
                metrics,
            }],
        }],
    }
}

/// Families of `OpenMetrics`, whose lines follow each other. What is none of counters, gauges and histograms without
/// labels is not there, and is skipped.
fn metrics(text: &str, now: u64) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            describe(comment, &mut metrics);
        } else if let Some(metric) = metrics.last_mut()
            && let Some(sample) = Sample::parse(line)
        {
            metric.add(sample, now);
        }
    }
    metrics
}

/// `HELP NAME TEXT`, `TYPE NAME TYPE`, `UNIT NAME UNIT`: the first one of a name begins it.
fn describe(comment: &str, metrics: &mut Vec<Metric>) {
    let mut words = comment.splitn(3, ' ');
    let (Some(what), Some(name), Some(text)) = (words.next(), words.next(), words.next()) else {
        return;
    };
    if metrics.last().is_none_or(|metric| metric.name != name) {
        metrics.push(Metric {
            name: name.to_owned(),
            ..Metric::default()
        });
    }
    let Some(metric) = metrics.last_mut() else {
        return;
    };
    match (what, text) {
        ("HELP", _) => text
            .trim_end_matches('.')
            .clone_into(&mut metric.description),
        ("UNIT", "seconds") => "s".clone_into(&mut metric.unit),
        ("UNIT", _) => text.clone_into(&mut metric.unit),
        ("TYPE", "gauge") => metric.data = Some(Data::Gauge(Gauge::default())),
        ("TYPE", "counter") => {
            metric.data = Some(Data::Sum(Sum {
                data_points: Vec::new(),
                aggregation_temporality: Temporality::Cumulative.into(),
                is_monotonic: true,
            }));
        }
        ("TYPE", "histogram") => {
            metric.data = Some(Data::Histogram(Histogram {
                data_points: vec![Buckets::default()],
                aggregation_temporality: Temporality::Cumulative.into(),
            }));
        }
        _ => {}
    }
}

/// `NAME{LABELS} VALUE`.
struct Sample<'t> {
    name: &'t str,
    labels: Vec<(&'t str, String)>,
    value: &'t str,
}

impl<'t> Sample<'t> {
    fn parse(line: &'t str) -> Option<Self> {
        let (before, value) = line.rsplit_once(' ')?;
        let (name, labels) = match before.split_once('{') {
            Some((name, labels)) => (name, self::labels(labels.strip_suffix('}')?)?),
            None => (before, Vec::new()),
        };
        Some(Self {
            name,
            labels,
            value,
        })
    }

    fn amount(&self) -> Option<Amount> {
        if let Ok(whole) = self.value.parse::<u64>() {
            return Some(Amount::Int(i64::try_from(whole).unwrap_or(i64::MAX)));
        }
        self.value.parse().ok().map(Amount::Double)
    }
}

/// `KEY="VALUE",KEY="VALUE"`, with backslashes before quotes, backslashes and for ends of lines.
fn labels(mut text: &str) -> Option<Vec<(&str, String)>> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut letters = rest.char_indices();
        let end = loop {
            match letters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match letters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.push((key, value));
        let rest = rest.get(end + 1..)?;
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(labels)
}

impl Metric {
    fn add(&mut self, sample: Sample<'_>, now: u64) {
        match &mut self.data {
            Some(Data::Gauge(Gauge { data_points }) | Data::Sum(Sum { data_points, .. })) => {
                data_points.push(Number {
                    time_unix_nano: now,
                    value: sample.amount(),
                    attributes: sample
                        .labels
                        .into_iter()
                        .map(|(key, value)| pair(key, Value::Text(value)))
                        .collect(),
                });
            }
            Some(Data::Histogram(histogram)) => {
                if let Some(buckets) = histogram.data_points.first_mut() {
                    buckets.time_unix_nano = now;
                    buckets.add(&sample);
                }
            }
            None => {}
        }
    }
}

impl Buckets {
    fn add(&mut self, sample: &Sample<'_>) {
        let whole = || sample.value.parse::<u64>().unwrap_or_default();
        if sample.name.ends_with("_sum") {
            self.sum = sample.value.parse().ok();
        } else if sample.name.ends_with("_count") {
            self.count = whole();
        } else if let Some((_, bound)) = sample.labels.first() {
            // Each has those below it in it; here each stands for itself.
            let below: u64 = self.bucket_counts.iter().sum();
            self.bucket_counts.push(whole().saturating_sub(below));
            if let Some(bound) = bound.parse().ok().filter(|bound: &f64| bound.is_finite()) {
                self.explicit_bounds.push(bound);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a_seconds How long.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
        a_seconds_sum 0.5\na_seconds_count 3\na_seconds_bucket{le=\"0.1\"} 1\na_seconds_bucket{le=\"1.0\"} 3\n\
        a_seconds_bucket{le=\"+Inf\"} 3\n# HELP b Things\n# TYPE b counter\n\
        b_total{x=\"1 {\\\"\\\\\\n}\",y=\"\"} 18446744073709551615\nb_total{x=\"z\",y=\", }\"} 2\n\
        # HELP c Now\n# TYPE c gauge\nc 1.5\n# EOF\n";

    #[test]
    fn what_is_scraped_is_what_is_sent() {
        let [a, b, c] = <[_; 3]>::try_from(metrics(TEXT, 7)).unwrap();
        assert_eq!((&*a.description, &*a.unit), ("How long", "s"));
        let Some(Data::Histogram(histogram)) = a.data else {
            panic!("{:?}", a.data)
        };
        assert_eq!(
            histogram.data_points,
            [Buckets {
                time_unix_nano: 7,
                count: 3,
                sum: Some(0.5),
                bucket_counts: vec![1, 2, 0],
                explicit_bounds: vec![0.1, 1.0],
            }]
        );
        let Some(Data::Sum(sum)) = b.data else {
            panic!("{:?}", b.data)
        };
        assert!(sum.is_monotonic && b.name == "b");
        let text = |key: &str, value: &str| pair(key, Value::Text(value.to_owned()));
        assert_eq!(
            sum.data_points[0].attributes,
            [text("x", "1 {\"\\\n}"), text("y", "")]
        );
        assert_eq!(sum.data_points[0].value, Some(Amount::Int(i64::MAX)));
        assert_eq!(sum.data_points[1].attributes[1], text("y", ", }"));
        let Some(Data::Gauge(gauge)) = c.data else {
            panic!("{:?}", c.data)
        };
        assert_eq!(gauge.data_points[0].value, Some(Amount::Double(1.5)));
    }

    #[test]
    fn many_metrics_are_several_requests() {
        let family = |number: usize| {
            let line = |at: usize| format!("m{number}_total{{p=\"{at}{}\"}} 1\n", "x".repeat(400));
            let lines: String = (0..1000).map(line).collect();
            format!("# HELP m{number} M\n# TYPE m{number} counter\n{lines}")
        };
        let text: String = (0..6).map(family).collect();
        let requests = requests(&text, &Resource::default(), 7);
        assert!(requests.len() >= 3, "{}", requests.len());
        let mut metrics = 0;
        for request in requests {
            assert!(request.encoded_len() < 2 * MOST);
            metrics += request.resource_metrics[0].scope_metrics[0].metrics.len();
        }
        assert_eq!(metrics, 6);
    }

    #[test]
    fn what_is_no_sample_is_skipped() {
        for line in [
            "",
            "a",
            "a{b 1",
            "a{b=\"c} 1",
            "a{b=\"\\",
            "# TYPE",
            "# TYPE d",
            "a{} 1",
        ] {
            let text = format!("# TYPE a gauge\n{line}\n");
            let all = metrics(&text, 1);
            assert_eq!(all.len(), 1, "{line}");
        }
    }
}
