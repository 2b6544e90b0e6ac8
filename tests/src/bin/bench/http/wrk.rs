//! `wrk`, which puts a server under load.

use std::{net::SocketAddr, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use lighter_tests::{Bed, need_program};

use super::CONNECTIONS;

/// What one run came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    /// Requests per second.
    pub(super) rate: f64,
    /// In milliseconds, as is the next one.
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// Installs it where it is missing.
pub(super) fn need() -> Result<()> {
    need_program("wrk", "wrk")
}

/// Sends requests for so long, from one thread: the servers are to have the other processors. All must be answered with 200.
pub(super) fn load(bed: &Bed, address: SocketAddr, time: Duration) -> Result<Measured> {
    let output = bed.in_network(|| {
        Command::new("wrk")
            .args(["--threads", "1", "--latency"])
            .args(["--connections", &CONNECTIONS.to_string(), "--duration", &format!("{}s", time.as_secs())])
            .arg(format!("http://{address}/"))
            .output()
    });
    let output = output.context("run wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    parse(&text).with_context(|| format!("wrk said:\n{text}"))
}

fn parse(text: &str) -> Result<Measured> {
    for trouble in ["Socket errors:", "Non-2xx"] {
        ensure!(!text.contains(trouble), "not all requests were answered with 200");
    }
    let after = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(str::trim).with_context(|| format!("no {name:?}"))
    };
    let rate = after("Requests/sec:")?.parse().context("the rate")?;
    Ok(Measured { rate, p50: milliseconds(after("50%")?)?, p99: milliseconds(after("99%")?)? })
}

/// As wrk writes it: `12.34us`, `1.20ms`, `1.02s`.
fn milliseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 1e-3), ("ms", 1.0), ("s", 1e3)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>().with_context(|| format!("a time in {text:?}"))? * factor);
        }
    }
    anyhow::bail!("no unit in {text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Running 1s test @ http://127.0.0.1:8080/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   500.00us  250.00us   5.50ms   92.00%
    Req/Sec    60.00k     2.00k   64.00k    70.00%
  Latency Distribution
     50%  480.00us
     75%  600.00us
     90%  700.00us
     99%    1.25ms
  60123 requests in 1.00s, 8.50MB read
Requests/sec:  60000.50
Transfer/sec:      8.50MB
";

    #[test]
    fn a_run() {
        let measured = parse(OUTPUT).unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(measured, Measured { rate: 60000.5, p50: 0.48, p99: 1.25 });
    }

    #[test]
    fn a_run_with_errors() {
        for trouble in ["  Non-2xx or 3xx responses: 5\n", "  Socket errors: connect 0, read 3, write 0, timeout 0\n"] {
            assert!(parse(&format!("{OUTPUT}{trouble}")).is_err());
        }
    }
}
