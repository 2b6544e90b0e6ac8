//! What Prometheus would read.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result, ensure};

use super::{Connection, Version};

/// A scrape: the samples by their name with labels, as they are written, such as `requests_total{code="200"}`.
///
/// Source: Prometheus' text-based exposition format, version 0.0.4, and what OpenMetrics 1.0 made of it.
#[derive(Clone, Debug)]
pub struct Metrics {
    samples: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Metrics {
    /// `GET /metrics`.
    ///
    /// # Errors
    /// When nobody answers, or with something else.
    pub async fn scrape(address: SocketAddr) -> Result<Metrics> {
        let answer = Connection::open(address, Version::Http1).await?.get("/metrics").await?;
        ensure!(answer.status == 200, "metrics: {answer}");
        let kind = answer.header("content-type");
        ensure!(
            kind.starts_with("text/plain") || kind.starts_with("application/openmetrics-text"),
            "metrics: {answer}"
        );
        Metrics::parse(&answer.text())
    }

    /// Reads a scrape; each name has to have a type.
    ///
    /// # Errors
    /// A line that is none of the format's, a sample twice, a sample without a type.
    pub fn parse(text: &str) -> Result<Metrics> {
        let mut metrics = Metrics { samples: BTreeMap::new(), types: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').with_context(|| format!("a type in {line:?}"))?;
                metrics.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').with_context(|| format!("a value in {line:?}"))?;
                let value = value.parse().with_context(|| format!("the value in {line:?}"))?;
                let family = name.split('{').next().unwrap_or(name);
                let of = ["", "_total", "_bucket", "_sum", "_count"].iter().filter_map(|end| family.strip_suffix(end));
                ensure!(of.into_iter().any(|name| metrics.types.contains_key(name)), "no type of {name}");
                ensure!(metrics.samples.insert(name.to_owned(), value).is_none(), "{name} comes twice");
            }
        }
        Ok(metrics)
    }

    /// A sample by its name with labels.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.samples.get(name).copied()
    }

    /// The sum of all samples of a name, whatever their labels; 0 where there are none.
    pub fn sum(&self, name: &str) -> f64 {
        let with_labels = format!("{name}{{");
        let named = self.samples.iter().filter(|(sample, _)| *sample == name || sample.starts_with(&with_labels));
        named.map(|(_, value)| value).sum()
    }

    /// `counter`, `gauge` or `histogram`.
    pub fn kind(&self, name: &str) -> Option<&str> {
        self.types.get(name).map(String::as_str)
    }

    /// The buckets of a histogram without labels: upper bounds, and how many samples don't exceed each; in ascending order.
    pub fn buckets(&self, name: &str) -> Vec<(f64, f64)> {
        let prefix = format!("{name}_bucket{{le=\"");
        let bound = |sample: &str| sample.strip_prefix(&prefix)?.strip_suffix("\"}")?.parse::<f64>().ok();
        let mut buckets: Vec<(f64, f64)> =
            self.samples.iter().filter_map(|(sample, count)| Some((bound(sample)?, *count))).collect();
        buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        buckets
    }

    /// The value that so large a part of a histogram's samples doesn't exceed, estimated as Prometheus does: samples are
    /// taken to be spread evenly in a bucket. `None` without samples.
    pub fn quantile(&self, name: &str, part: f64) -> Option<f64> {
        let buckets = self.buckets(name);
        let rank = part * buckets.last().filter(|(_, count)| *count > 0.0)?.1;
        let at = buckets.iter().position(|(_, count)| *count >= rank)?;
        let (lower, below) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
        let (upper, upto) = buckets[at];
        Some(if upper.is_infinite() { lower } else { lower + (upper - lower) * (rank - below) / (upto - below) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPE: &str = "\
# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{code=\"200\"} 7
requests_total{code=\"500\"} 1
# TYPE live gauge
live 3
# TYPE seconds histogram
seconds_bucket{le=\"0.001\"} 0
seconds_bucket{le=\"0.01\"} 4
seconds_bucket{le=\"+Inf\"} 8
seconds_sum 1.5
seconds_count 8
";

    #[test]
    fn a_scrape() {
        let metrics = Metrics::parse(SCRAPE).unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(metrics.get("requests_total{code=\"500\"}"), Some(1.0));
        assert_eq!((metrics.sum("requests_total"), metrics.sum("live"), metrics.sum("nothing")), (8.0, 3.0, 0.0));
        assert_eq!(metrics.kind("seconds"), Some("histogram"));
        assert_eq!(metrics.buckets("seconds"), [(0.001, 0.0), (0.01, 4.0), (f64::INFINITY, 8.0)]);
        let quarter = metrics.quantile("seconds", 0.25).expect("a quantile");
        assert!((quarter - 0.0055).abs() < 1e-9, "{quarter}");
        assert_eq!(metrics.quantile("seconds", 0.99), Some(0.01));
        assert_eq!(metrics.quantile("live", 0.5), None);
    }

    #[test]
    fn what_is_no_scrape() {
        for text in
            ["requests_total 1", "# TYPE a counter\na one", "# TYPE a counter\na 1\na 2", "# TYPE a gauge\nword"]
        {
            assert!(Metrics::parse(text).is_err(), "{text:?}");
        }
    }
}
