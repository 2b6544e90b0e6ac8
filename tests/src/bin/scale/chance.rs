//! Numbers that look like chance, the same for the same seed. Source: SplitMix64, Steele, Lea and Flood, 2014.

/// A source of them.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 to below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Between evenly spaced quantiles.
    pub(crate) fn of(&mut self, quantiles: &[f64]) -> f64 {
        let Some(last) = quantiles.len().checked_sub(1).filter(|last| *last > 0) else { return 1.0 };
        let at = self.unit() * last as f64;
        let index = (at as usize).min(last - 1);
        quantiles[index] + (quantiles[index + 1] - quantiles[index]) * (at - index as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_numbers_and_within_bounds() {
        // Of the reference implementation with seed 0: 0xe220a8397b1dcdaf.
        assert_eq!(Chance::new(0).unit(), (0xe220_a839_7b1d_cdaf_u64 >> 11) as f64 / (1_u64 << 53) as f64);
        let mut chance = Chance::new(1);
        let samples: Vec<f64> = (0..1000).map(|_| chance.of(&[0.5, 1.0, 3.0])).collect();
        assert!(samples.iter().all(|sample| (0.5..3.0).contains(sample)));
        let below = samples.iter().filter(|sample| **sample < 1.0).count();
        assert!((450..550).contains(&below), "{below} of 1000 are below the median");
    }
}
