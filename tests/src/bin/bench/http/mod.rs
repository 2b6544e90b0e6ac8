//! Handlers of `wasi:http` under load: requests per second and latency, beside a server without WebAssembly, which is the
//! limit, and beside `wasmtime serve` with the same components where there is one.
//!
//! All servers and the client share the machine and the bed's network. Lighter's are in a container, behind the seal; the
//! others are plain processes of the host's.

mod server;
mod wrk;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use lighter_tests::{
    Bed,
    http::{Connection, Metrics, Version},
};
use serde::Serialize;

use self::server::{Contender, Server};
use crate::{
    budget::{self, Bound, Verdict},
    samples::Samples,
    table::Table,
};

/// Connections of the client.
pub(crate) const CONNECTIONS: usize = 32;

/// Before the rounds, each server is under load for so long: code and caches get warm.
const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
pub(crate) struct Http {
    contenders: Vec<Load>,
    starts: Vec<Start>,
    /// What is on the PATH, if it is.
    wasmtime: Option<String>,
    verdicts: Vec<(Contender, Verdict)>,
}

#[derive(Debug, Serialize)]
struct Load {
    contender: Contender,
    /// Requests per second, one sample a round.
    rate: Samples,
    /// In milliseconds, of each round.
    p50: Samples,
    p99: Samples,
}

/// What it took to make an instance while requests waited for it: in microseconds, as the server's own metrics tell.
#[derive(Debug, Serialize)]
struct Start {
    contender: Contender,
    instances: f64,
    mean: f64,
    p50: f64,
    p99: f64,
}

/// Puts each server under load once a round.
pub(crate) fn measure(bed: &Bed, rounds: usize, round: Duration, progress: &ProgressBar) -> Result<Http> {
    let wasmtime = server::wasmtime()?;
    let contenders = Contender::all(wasmtime.is_some());
    progress.reset();
    progress.set_message("wasi:http");
    progress.set_length((contenders.len() * (rounds + 1)) as u64);
    wrk::need()?;
    let servers = contenders.iter().map(|contender| Server::start(bed, *contender)).collect::<Result<Vec<_>>>()?;
    let mut loads: Vec<Load> = contenders
        .into_iter()
        .map(|contender| Load { contender, rate: Samples::default(), p50: Samples::default(), p99: Samples::default() })
        .collect();
    for server in &servers {
        bed.on_network(async || greets(server).await)?;
        wrk::load(bed, server.address, WARM_UP)?;
        progress.inc(1);
    }
    for _ in 0..rounds {
        for (server, load) in servers.iter().zip(&mut loads) {
            let measured = wrk::load(bed, server.address, round)?;
            load.rate.push(measured.rate);
            load.p50.push(measured.p50);
            load.p99.push(measured.p99);
            progress.inc(1);
        }
    }
    let mut starts = Vec::new();
    for server in &servers {
        if let Some(metrics) = server.metrics {
            let metrics = bed.on_network(async || Metrics::scrape(metrics).await)?;
            starts.push(Start::of(server.contender, &metrics)?);
        }
    }
    Ok(Http::new(loads, starts, wasmtime))
}

/// The same for all: else they would not be compared.
async fn greets(server: &Server<'_>) -> Result<()> {
    let answer = Connection::open(server.address, Version::Http1).await?.get("/").await?;
    ensure!(answer.status == 200 && answer.text() == "hello from wasi:http\n", "{:?}: {answer}", server.contender);
    Ok(())
}

impl Start {
    fn of(contender: Contender, metrics: &Metrics) -> Result<Start> {
        const NAME: &str = "lighter_http_instance_start_seconds";
        let (sum, count) = (metrics.sum(&format!("{NAME}_sum")), metrics.sum(&format!("{NAME}_count")));
        let quantile = |part| metrics.quantile(NAME, part).with_context(|| format!("no {NAME} of {contender:?}"));
        let microseconds = |seconds: f64| seconds * 1e6;
        Ok(Start {
            contender,
            instances: count,
            mean: microseconds(sum / count),
            p50: microseconds(quantile(0.5)?),
            p99: microseconds(quantile(0.99)?),
        })
    }
}

impl Http {
    fn new(contenders: Vec<Load>, starts: Vec<Start>, wasmtime: Option<String>) -> Http {
        let mut http = Http { contenders, starts, wasmtime, verdicts: Vec::new() };
        let beside = |one, other| http.rate(one) / http.rate(other);
        let mut verdicts = vec![(
            Contender::Reused,
            Verdict::new("× plain hyper", Bound::AtLeast(0.5), beside(Contender::Reused, Contender::Plain)),
        )];
        if http.wasmtime.is_some() {
            let fresh = beside(Contender::Fresh, Contender::WasmtimeServe);
            verdicts.push((Contender::Fresh, Verdict::new("× wasmtime serve", Bound::AtLeast(2.0), fresh)));
        }
        http.verdicts = verdicts;
        http
    }

    fn rate(&self, contender: Contender) -> f64 {
        self.contenders.iter().find(|load| load.contender == contender).map_or(f64::NAN, |load| load.rate.median())
    }

    pub(crate) fn rounds(&self) -> usize {
        self.contenders.first().map_or(0, |load| load.rate.len())
    }

    /// Against what, or why not.
    pub(crate) fn peer(&self) -> String {
        let missing = || "skipped: there is no `wasmtime` on the PATH to compare with".to_owned();
        self.wasmtime.as_ref().map_or_else(missing, |version| format!("{version} on the PATH"))
    }

    pub(crate) fn table(&self) -> Table {
        let titles =
            ["`wasi:http` hello, median", "requests/s", "p50 ms", "p99 ms", "× hyper", "× wasmtime serve", "budget"];
        let mut table = Table::new(&titles);
        for Load { contender, rate, p50, p99 } in &self.contenders {
            let verdicts: Vec<Verdict> =
                self.verdicts.iter().filter(|(of, _)| of == contender).map(|(_, verdict)| verdict.clone()).collect();
            let beside = |other: Option<Contender>| {
                let ratio = other.map(|other| rate.median() / self.rate(other)).filter(|ratio| ratio.is_finite());
                ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"))
            };
            table.row([
                contender.name().to_owned(),
                format!("{:.0}", rate.median()),
                format!("{:.2}", p50.median()),
                format!("{:.2}", p99.median()),
                beside(Some(Contender::Plain)),
                beside(contender.peer()),
                budget::cell(&verdicts),
            ]);
        }
        table
    }

    pub(crate) fn starts(&self) -> Table {
        let mut table = Table::new(&["instance start under load", "instances", "mean µs", "p50 µs", "p99 µs", ""]);
        for Start { contender, instances, mean, p50, p99 } in &self.starts {
            table.row([
                contender.name().to_owned(),
                format!("{instances:.0}"),
                format!("{mean:.1}"),
                format!("{p50:.1}"),
                format!("{p99:.1}"),
                String::new(),
            ]);
        }
        table
    }
}
