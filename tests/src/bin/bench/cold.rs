//! The first start ever of a module, which compiles it, and the next one, which doesn't.

use anyhow::{Result, ensure};
use indicatif::ProgressBar;
use lighter_tests::Bed;
use serde::Serialize;

use crate::{contender::Contender, ctr_run, samples::Samples, table::Table};

/// By `ctr run`, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Cold {
    guests: Vec<Guest>,
}

#[derive(Debug, Serialize)]
struct Guest {
    contender: Contender,
    first: Samples,
    next: Samples,
}

/// Empties the cache before each first start.
pub(crate) fn measure(bed: &Bed, rounds: usize, progress: &ProgressBar) -> Result<Cold> {
    progress.reset();
    progress.set_message("first starts");
    progress.set_length(rounds as u64);
    let mut guests = [Contender::Lighter, Contender::LighterComponent].map(|contender| Guest {
        contender,
        first: Samples::default(),
        next: Samples::default(),
    });
    for round in 0..rounds {
        for Guest { contender, first, next } in &mut guests {
            let emptied = bed.sh("rm -r /var/lib/lighter/cache").try_run()?;
            ensure!(emptied.status == 0, "empty the cache: {emptied}");
            let slug = contender.slug();
            first.push(ctr_run::once(bed, *contender, &format!("first-{slug}-{round}"))?);
            next.push(ctr_run::once(bed, *contender, &format!("next-{slug}-{round}"))?);
        }
        progress.inc(1);
    }
    Ok(Cold { guests: guests.into() })
}

impl Cold {
    /// Of each.
    pub(crate) fn rounds(&self) -> usize {
        self.guests.first().map_or(0, |guest| guest.first.len())
    }

    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new(&["`ctr run --rm` hello, median", "first start ms", "next ms", "compiling ms", ""]);
        for Guest { contender, first, next } in &self.guests {
            table.row([
                contender.name().to_owned(),
                format!("{:.1}", first.median()),
                format!("{:.1}", next.median()),
                format!("{:.1}", first.median() - next.median()),
                String::new(),
            ]);
        }
        table
    }
}
