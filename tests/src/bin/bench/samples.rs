//! Samples of one quantity.

use serde::Serialize;

/// In the order in which they were taken.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The mean of the middle two where there are two.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            even if even % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        }
    }

    /// The smallest sample that nine in ten don't exceed.
    pub(crate) fn p90(&self) -> f64 {
        let sorted = self.sorted();
        sorted.get((sorted.len() * 9).div_ceil(10).saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_few_and_of_many() {
        let samples = |upto: u8| Samples((1..=upto).rev().map(f64::from).collect());
        for (upto, median, p90) in [(1, 1.0, 1.0), (2, 1.5, 2.0), (9, 5.0, 9.0), (10, 5.5, 9.0), (25, 13.0, 23.0)] {
            assert_eq!((samples(upto).median(), samples(upto).p90()), (median, p90), "1 to {upto}");
        }
    }
}
