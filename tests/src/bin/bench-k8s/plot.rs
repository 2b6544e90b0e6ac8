//! The plot: pods that are ready over time, a line for each kind.

use std::fmt::Write;

use crate::Figure;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// Around the area of the lines, for the axes' labels.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 50.0;

/// For readers who can't tell some colours apart as well. Source: M. Okabe and K. Ito, "Color Universal Design".
const COLOURS: &[&str] = &["#0072b2", "#009e73", "#d55e00"];

/// About so many lines across.
const STEPS: f64 = 6.0;

/// An SVG document.
pub(crate) fn svg(figures: &[Figure], pods: u64) -> String {
    let seconds = figures.iter().map(Figure::all_ready).fold(1.0, f64::max);
    let x = |at: f64| LEFT + at / seconds * (WIDTH - LEFT - RIGHT);
    let y = |ready: f64| HEIGHT - BOTTOM - ready / pods.max(1) as f64 * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut add = |text: String| {
        // Writing to a string can't fail.
        let _ = writeln!(svg, "{text}");
    };
    for at in marks(seconds) {
        add(format!("<path d=\"M{:.1} {TOP}V{:.1}\" stroke=\"#ddd\"/>", x(at), HEIGHT - BOTTOM));
        add(format!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at}</text>", x(at), HEIGHT - BOTTOM + 18.0));
    }
    for ready in marks(pods as f64) {
        add(format!("<path d=\"M{LEFT} {:.1}H{:.1}\" stroke=\"#ddd\"/>", y(ready), WIDTH - RIGHT));
        add(format!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{ready}</text>", LEFT - 8.0, y(ready) + 4.0));
    }
    add(format!("<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">seconds</text>", WIDTH - RIGHT, HEIGHT - 10.0));
    add(format!("<text x=\"10\" y=\"{:.1}\">pods ready</text>", TOP - 30.0));
    for (index, (figure, colour)) in figures.iter().zip(COLOURS.iter().cycle()).enumerate() {
        // A step: between two samples nothing is known to have changed.
        let mut path = String::new();
        for (at, ready) in &figure.ready {
            let (x, y) = (x(*at), y(*ready as f64));
            let _ = if path.is_empty() { write!(path, "M{x:.1} {y:.1}") } else { write!(path, "H{x:.1}V{y:.1}") };
        }
        add(format!("<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"));
        let text = format!("{}: {:.1} s, {:.2} MiB a pod", figure.name, figure.all_ready(), figure.memory / 1024.0);
        let at = TOP - 30.0 + 16.0 * index as f64;
        add(format!("<text x=\"{:.1}\" y=\"{at:.1}\" fill=\"{colour}\">{text}</text>", LEFT + 120.0));
    }
    svg += "</svg>\n";
    svg
}

/// Round numbers from 0 on, up to `most`.
fn marks(most: f64) -> Vec<f64> {
    let rough = most / STEPS;
    let power = 10_f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough).unwrap_or(power);
    (0_u32..).map(|index| f64::from(index) * step).take_while(|mark| *mark <= most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round() {
        assert_eq!(marks(200.0), [0.0, 50.0, 100.0, 150.0, 200.0]);
        assert_eq!(marks(7.0), [0.0, 2.0, 4.0, 6.0]);
    }

    #[test]
    fn every_kind_has_a_line() {
        let figure = |name: &str| Figure {
            name: name.to_owned(),
            ready: vec![(0.0, 1), (2.0, 10)],
            memory: 1024.0,
            pods_at_rest: 0.0,
            daemons_at_rest: 0.0,
        };
        let svg = svg(&[figure("one"), figure("other")], 10);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        // From the first pod to all of them, at the right edge.
        assert_eq!(svg.matches("stroke-width=\"2\"").count(), 2);
        assert!(svg.contains("H730.0V50.0"), "{svg}");
    }
}
