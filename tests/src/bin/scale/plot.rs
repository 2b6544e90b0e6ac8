//! The share of pods that are ready over time, as SVG.

use std::fmt::Write;

/// Of the picture and of the part where lines are.
const SIZE: (f64, f64) = (860.0, 420.0);
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const PLOT: (f64, f64) = (540.0, 320.0);

/// Told apart by eyes of all kinds. Source: Okabe and Ito, "Color Universal Design", 2008.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// Draws a line for each name: when each of its pods was ready, in seconds and in order.
pub(crate) fn draw(title: &str, lines: &[(String, &[f64])]) -> String {
    let end = lines.iter().filter_map(|(_, ready)| ready.last()).fold(1.0_f64, |end, last| end.max(*last));
    // A number of seconds between ticks that people count in.
    let tick = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0].into_iter().find(|tick| end / tick <= 12.0);
    let tick = tick.unwrap_or(500.0);
    let end = (end / tick).ceil() * tick;
    let x = |seconds: f64| LEFT + seconds / end * PLOT.0;
    let y = |share: f64| TOP + (1.0 - share) * PLOT.1;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{title}</text>\n",
        SIZE.0, SIZE.1
    );
    let mut line = |x1: f64, y1: f64, x2: f64, y2: f64, label: String, anchor: &str, at: (f64, f64)| {
        let _ = writeln!(svg, "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"#ccc\"/>");
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{label}</text>", at.0, at.1);
    };
    for number in 0..=(end / tick) as u32 {
        let seconds = f64::from(number) * tick;
        let label = format!("{seconds} s");
        line(x(seconds), y(0.0), x(seconds), y(1.0), label, "middle", (x(seconds), y(0.0) + 18.0));
    }
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let label = format!("{} %", share * 100.0);
        line(x(0.0), y(share), x(end), y(share), label, "end", (LEFT - 6.0, y(share) + 4.0));
    }
    for (number, ((name, ready), colour)) in lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let mut path = format!("M{:.1} {:.1}", x(0.0), y(0.0));
        // A point for each hundredth is as much as can be seen.
        for hundredth in 1..=100 {
            let index = (ready.len() * hundredth).div_ceil(100).saturating_sub(1);
            let Some(seconds) = ready.get(index) else { continue };
            let _ = write!(path, "H{:.1}V{:.1}", x(*seconds), y(hundredth as f64 / 100.0));
        }
        let _ = writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
        let (at, height) = (LEFT + PLOT.0 + 20.0, TOP + 20.0 * number as f64 + 10.0);
        let _ = writeln!(svg, "<path d=\"M{at:.1} {height:.1}h24\" stroke=\"{colour}\" stroke-width=\"3\"/>");
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{name}</text>", at + 30.0, height + 4.0);
    }
    svg + "</svg>\n"
}
