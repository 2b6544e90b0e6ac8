//! `make bench-k8s`: many pods on a node of a real Kubernetes, of Lighter's and of runc's, beside some native ones.
//!
//! For each kind a deployment grows from one pod to all of them: how long until all are ready, what memory a pod takes, and
//! what the pods and the node's daemons spend when nothing happens. Each kind gets a node of its own, so that none inherits
//! what another has left.

mod plot;
mod processes;

use std::{
    fs,
    num::NonZero,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Parser;
use lighter_tests::{
    Image, Suite, checkout, documents, guests,
    kubernetes::{Cluster, Namespace, manifest},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::processes::{DAEMONS, PODS};

/// Many pods on one node: how soon they are ready, and what they take when they are.
#[derive(Parser)]
#[command(name = "bench-k8s", version)]
struct Arguments {
    /// Whose containerd: trixie (1.7) or forky (2.1)
    #[arg(long, default_value = "trixie")]
    suite: Suite,
    /// Pods of each kind
    #[arg(long, value_name = "N", default_value_t = 200)]
    pods: u64,
    /// Native pods that are there already
    #[arg(long, value_name = "N", default_value_t = 20)]
    beside: u64,
    /// For how long the node is watched at rest
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    rest: u64,
    /// Write every sample to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the pods that are ready over time to this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Measure nothing: read the samples of an earlier run's --json
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    from: Option<PathBuf>,
    /// Put table and plot into docs/
    #[arg(long)]
    update: bool,
}

/// Where the documentation has the table, and the plot.
const DOCUMENT: &str = "docs/kubernetes.md";
const PLOT: &str = "docs/pods.svg";
const MARKS: [&str; 2] = ["<!-- pods: LIGHTER_UPDATE=1 make bench-k8s -->\n", "<!-- /pods -->\n"];

/// What runs in the pods, all of which do nothing.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    class: &'static str,
    image: fn() -> Image,
}

const KINDS: &[Kind] = &[
    Kind { name: "Lighter (Wasmtime)", class: "lighter", image: guest },
    Kind { name: "Lighter (WAMR)", class: "lighter-wamr", image: guest },
    Kind { name: "runc", class: "runc", image: native },
];

/// What came of one kind.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    /// Seconds since the deployment was told to grow, and how many of its pods were ready.
    pub(crate) ready: Vec<(f64, u64)>,
    /// Proportional set size of all processes of the pods, pause and shims among them, in KiB for each pod.
    pub(crate) memory: f64,
    /// Thousandths of a processor that the pods' processes take at rest, all of them together.
    pub(crate) pods_at_rest: f64,
    /// The same for the kubelet and containerd.
    pub(crate) daemons_at_rest: f64,
}

impl Figure {
    /// Seconds until all were ready.
    pub(crate) fn all_ready(&self) -> f64 {
        self.ready.last().map_or(f64::NAN, |(seconds, _)| *seconds)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let figures = match &arguments.from {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("read samples in {}", path.display()))?
        }
        None => measure_all(&arguments)?,
    };
    let table = table(&arguments, &figures);
    print!("{table}");
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&figures).context("write JSON")?;
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = &arguments.svg {
        fs::write(path, plot::svg(&figures, arguments.pods)).with_context(|| format!("write {}", path.display()))?;
    }
    if arguments.update {
        let (path, plot) = (checkout().join(DOCUMENT), checkout().join(PLOT));
        let document = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let (_, document) = documents::replaced(&document, MARKS, &table)?;
        fs::write(&path, document).with_context(|| format!("write {}", path.display()))?;
        fs::write(&plot, plot::svg(&figures, arguments.pods)).with_context(|| format!("write {}", plot.display()))?;
    }
    Ok(())
}

fn measure_all(arguments: &Arguments) -> Result<Vec<Figure>> {
    let kinds = KINDS.iter().map(|kind| {
        eprintln!("bench-k8s: {} pods of {}", arguments.pods, kind.name);
        measure(arguments, *kind).with_context(|| format!("measure {}", kind.name))
    });
    kinds.collect()
}

/// The figures in Markdown, below a line that says what they are of.
fn table(arguments: &Arguments, figures: &[Figure]) -> String {
    let mut text = format!(
        "{} pods of each kind at once, beside {} native ones; containerd of {}, {} processors:\n\n\
         | pods | all ready after | memory a pod | pods at rest | kubelet and containerd at rest |\n\
         |---|---:|---:|---:|---:|\n",
        arguments.pods,
        arguments.beside,
        arguments.suite,
        thread::available_parallelism().map_or(0, NonZero::get),
    );
    for figure in figures {
        text += &format!(
            "| {} | {:.1} s | {:.2} MiB | {:.1} ‰ of a CPU | {:.0} ‰ of a CPU |\n",
            figure.name,
            figure.all_ready(),
            figure.memory / 1024.0,
            figure.pods_at_rest,
            figure.daemons_at_rest
        );
    }
    text
}

fn measure(arguments: &Arguments, kind: Kind) -> Result<Figure> {
    let cluster = Cluster::own_node(arguments.suite)?;
    let bed = cluster.own().context("the node of a cluster that was given is not ours to measure")?;
    let namespace = cluster.namespace("many");
    namespace.apply(&[deployment("beside", "runc", &cluster.image(&native()), arguments.beside)]);
    // The first of its kind brings its code into the cache.
    namespace.apply(&[deployment("many", kind.class, &cluster.image(&(kind.image)()), 1)]);
    namespace.wait_rolled_out("beside");
    namespace.wait_rolled_out("many");

    let before = processes::memory(bed, PODS)?;
    let ready = grow(&namespace, arguments.pods)?;
    // What was started settles.
    thread::sleep(Duration::from_secs(10));
    let memory = processes::memory(bed, PODS)?.saturating_sub(before);
    let (pods, daemons) = (processes::cpu(bed, PODS)?, processes::cpu(bed, DAEMONS)?);
    thread::sleep(Duration::from_secs(arguments.rest));
    let milli = |from: Duration, to: Duration| (to.saturating_sub(from)).as_secs_f64() * 1e3 / arguments.rest as f64;
    let figure = Figure {
        name: kind.name.to_owned(),
        ready,
        memory: memory as f64 / (arguments.pods - 1).max(1) as f64,
        pods_at_rest: milli(pods, processes::cpu(bed, PODS)?),
        daemons_at_rest: milli(daemons, processes::cpu(bed, DAEMONS)?),
    };
    drop(namespace);
    cluster.remove();
    Ok(figure)
}

/// Has the deployment grow to this size, and tells when how many were ready.
fn grow(namespace: &Namespace, pods: u64) -> Result<Vec<(f64, u64)>> {
    let watch = ["get", "deployment", "many", "--watch", "-o", "jsonpath={.status.readyReplicas}{\"\\n\"}"];
    let watch = namespace.kubectl(&watch).timeout(Duration::from_secs(1200)).spawn();
    watch.wait_for("1\n");
    let start = Instant::now();
    namespace.kubectl(&["scale", "deployment/many", &format!("--replicas={pods}")]).try_run()?;
    let mut samples = vec![(0.0, 1)];
    while samples.last().is_some_and(|(_, ready)| *ready < pods) {
        anyhow::ensure!(!watch.is_over(), "kubectl get --watch ended: {}", watch.stdout());
        let ready = watch.stdout().lines().filter_map(|line| line.parse().ok()).max().unwrap_or(1);
        if samples.last().is_some_and(|(_, last)| *last < ready) {
            samples.push((start.elapsed().as_secs_f64(), ready));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(samples)
}

fn deployment(name: &str, class: &str, image: &str, replicas: u64) -> Value {
    let spec = json!({"progressDeadlineSeconds": 1200, "template": {"spec": {"terminationGracePeriodSeconds": 1}}});
    let sleeper = json!({"name": "sleeper", "image": image});
    manifest::with(manifest::deployment(name, class, replicas, &[sleeper]), json!({"spec": spec}))
}

fn guest() -> Image {
    let image = Image::new("docker.io/library/sleeper-guest:k8s").of_host();
    image.file("/sleep.wasm", guests::p1("sleep")).entrypoint(&["/sleep.wasm"])
}

/// Static, and does nothing but wait.
fn native() -> Image {
    let image = Image::new("docker.io/library/sleeper-native:k8s").of_host();
    image.file("/sleeper", guests::native("pause")).entrypoint(&["/sleeper"])
}
