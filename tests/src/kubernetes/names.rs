//! The cluster's DNS: dnsmasq, told of Services as they come and go. It knows those with an address; what a pod's name is, and
//! what is outside of the cluster, it doesn't.

use anyhow::Result;

use super::node::{self, ADDRESS, FOLDER, KUBECONFIG};
use crate::{Bed, daemons};

/// What all names end with.
pub(super) const DOMAIN: &str = "cluster.local";

/// Starts it on the node's address, and waits until it knows the API server's Service.
pub(super) fn start(bed: &Bed) -> Result<()> {
    let script = format!("{FOLDER}/dns.sh");
    bed.write(&script, &watch())?;
    let name = format!("kubernetes.default.svc.{DOMAIN}");
    let answers = format!("busybox nslookup {name} {ADDRESS} | grep -A1 {name} | grep -q Address");
    daemons::start(bed, "dns", &format!("sh {script}"), || node::succeeds(bed, &answers))
}

/// A file for each Service, read again whenever one has changed.
fn watch() -> String {
    format!(
        r#"export KUBECONFIG={KUBECONFIG}
        mkdir -p {FOLDER}/names
        dnsmasq --keep-in-foreground --conf-file=/dev/null --log-facility=- --pid-file= --user=root --no-hosts --no-resolv \
          --bind-interfaces --listen-address={ADDRESS} --local=/{DOMAIN}/ --addn-hosts={FOLDER}/names &
        dnsmasq=$!
        while :; do
          kubectl get services --all-namespaces --watch --output-watch-events --output=jsonpath='{{.type}} {{.object.spec.clusterIP}} {{.object.metadata.name}}.{{.object.metadata.namespace}}{{"\n"}}' |
            while read -r change address name; do
              case $change in
                DELETED) rm -f "{FOLDER}/names/$name" ;;
                *) echo "$address $name.svc.{DOMAIN}" >"{FOLDER}/names/$name" ;;
              esac
              kill -HUP $dnsmasq
            done
          sleep 1
        done
        "#
    )
}
