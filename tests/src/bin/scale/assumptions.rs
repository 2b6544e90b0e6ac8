//! What no bench measures: the cluster around the nodes. Each assumption has its name and its reason in `assumptions.toml`.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Those that the documentation's tables are made with.
const TEXT: &str = include_str!("assumptions.toml");

/// Field by field what `assumptions.toml` explains.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Assumptions {
    pub(crate) seed: u64,
    pub(crate) pods_per_node: usize,
    pub(crate) modules: usize,
    pub(crate) native_image_megabytes: f64,
    pub(crate) cores: usize,
    pub(crate) network_cpu_milliseconds: f64,
    pub(crate) network_wait_milliseconds: f64,
    pub(crate) kubelet_pods_per_second: f64,
    pub(crate) relist_seconds: f64,
    pub(crate) parallel_pulls: usize,
    pub(crate) unpack_megabytes_per_second: f64,
    pub(crate) compilers: usize,
    pub(crate) memory_gibibytes: f64,
    pub(crate) request_mebibytes: f64,
    pub(crate) overhead_mebibytes: f64,
    pub(crate) node_gigabits: f64,
    pub(crate) registry_gigabits: f64,
    pub(crate) mirror_gigabits: f64,
    pub(crate) round_trip_milliseconds: f64,
    pub(crate) pull_round_trips: u32,
    pub(crate) peer_uploads: usize,
    pub(crate) peer_seeds: usize,
    pub(crate) controller_pods_per_second: f64,
    pub(crate) scheduler_pods_per_second: f64,
    pub(crate) api_writes_per_second: f64,
    pub(crate) lease_seconds: f64,
}

impl Assumptions {
    /// Those of the file, but for what is given as `KEY=VALUE`.
    ///
    /// # Errors
    /// No such key, or a value of another kind, or none that a simulation ends with.
    pub(crate) fn with(others: &[String]) -> Result<Self> {
        let mut table: toml::Table = TEXT.parse().context("parse assumptions.toml")?;
        for other in others {
            let (key, value) = other.split_once('=').with_context(|| format!("{other:?} is not KEY=VALUE"))?;
            let parsed: toml::Table = format!("value = {value}").parse().with_context(|| format!("value of {key}"))?;
            ensure!(parsed.len() == 1, "{other:?} is more than one KEY=VALUE");
            let old = table.get_mut(key).with_context(|| format!("no assumption {key:?}; see assumptions.toml"))?;
            // A whole number will do where others are allowed.
            *old = match (&*old, &parsed["value"]) {
                (toml::Value::Float(_), toml::Value::Integer(number)) => toml::Value::Float(*number as f64),
                (_, value) => value.clone(),
            };
        }
        for (key, value) in table.iter().filter(|(key, _)| *key != "seed") {
            let number = value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
            ensure!(number.is_some_and(|number| number > 0.0 && number < 1e9), "{key} = {value}: expected more than 0");
        }
        table.try_into().context("read assumptions")
    }

    /// Each key with its value, as in the file.
    pub(crate) fn listed(&self) -> Vec<(String, String)> {
        let table = toml::Table::try_from(self).unwrap_or_default();
        // The file's order says what belongs together.
        let keys = TEXT.lines().filter_map(|line| line.split_once(" = ").map(|(key, _)| key));
        keys.filter_map(|key| Some((key.to_owned(), table.get(key)?.to_string()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_replace_those_of_the_file_or_are_refused() {
        let with = |other: &str| Assumptions::with(&[other.to_owned()]);
        assert_eq!(with("node-gigabits=25").expect("a number").node_gigabits, 25.0);
        assert_eq!(with("cores=64").expect("a number").cores, 64);
        for wrong in ["cores", "cors=1", "cores=many", "cores=1.5", "cores=0", "relist-seconds=-1", "cores=1\nseed=2"] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
    }
}
