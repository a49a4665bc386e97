//! Pictures: lines and stacked areas over linear or logarithmic axes, written as SVG by hand. Colours are CSS classes, so
//! that the page decides about them, by day and by night.

use std::fmt::Write;

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;

pub struct Plot {
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    /// Stacked areas, from the bottom up, all at the same x.
    pub stack: Vec<Series>,
    /// Upright lines at these x.
    pub marks: Vec<f64>,
}

pub struct Series {
    pub name: String,
    /// The CSS class that gives the colour.
    pub class: String,
    pub points: Vec<(f64, f64)>,
}

/// An axis from its first to its last tick.
pub struct Axis {
    pub logarithmic: bool,
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From zero, with about five round ticks.
    pub fn linear(highest: f64, label: impl Fn(f64) -> String) -> Self {
        let highest = if highest > 0.0 { highest } else { 1.0 };
        let rough = highest / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let count = (highest / step).ceil() as u32;
        let ticks =
            (0..=count).map(|place| f64::from(place) * step).map(|value| (value, label(value))).collect();
        Self { logarithmic: false, ticks }
    }

    /// From zero exactly to `last`, for time.
    pub fn time(last: f64) -> Self {
        let mut axis = Self::linear(last, |seconds| format!("{} s", trimmed(seconds)));
        axis.ticks.retain(|(value, _)| *value <= last);
        axis.ticks.push((last.max(1e-6), String::new()));
        axis
    }

    /// Powers of ten around the values.
    pub fn logarithmic(lowest: f64, highest: f64, label: impl Fn(f64) -> String) -> Self {
        let (from, to) = (lowest.max(1e-9).log10().floor() as i32, highest.max(1e-9).log10().ceil() as i32);
        let ticks = (from..=to.max(from + 1))
            .map(|power| 10f64.powi(power))
            .map(|value| (value, label(value)))
            .collect();
        Self { logarithmic: true, ticks }
    }

    fn share(&self, value: f64) -> f64 {
        let (first, last) =
            (self.ticks.first().map_or(0.0, |tick| tick.0), self.ticks.last().map_or(1.0, |tick| tick.0));
        let share = match self.logarithmic {
            true => (value.max(first).ln() - first.ln()) / (last.ln() - first.ln()),
            false => (value - first) / (last - first),
        };
        share.clamp(0.0, 1.0)
    }
}

impl Plot {
    pub fn svg(&self) -> String {
        let mut out = format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">"#);
        self.draw_grid(&mut out);
        let mut floor: Vec<f64> = vec![0.0; self.stack.first().map_or(0, |series| series.points.len())];
        for series in &self.stack {
            self.draw_area(&mut out, series, &mut floor);
        }
        for series in &self.series {
            let path = self.path(series.points.iter().copied());
            push(
                &mut out,
                format_args!(
                    r#"<path class="line {}" d="{path}"><title>{}</title></path>"#,
                    series.class, series.name
                ),
            );
        }
        for mark in &self.marks {
            let x = self.x_at(*mark);
            push(
                &mut out,
                format_args!(
                    r#"<line class="mark" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{:.1}"/>"#,
                    HEIGHT - BOTTOM
                ),
            );
        }
        out.push_str("</svg>");
        out.push_str(&self.legend());
        out
    }

    fn draw_grid(&self, out: &mut String) {
        for (value, label) in &self.y.ticks {
            let y = self.y_at(*value);
            push(
                out,
                format_args!(
                    r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/>"#,
                    WIDTH - RIGHT
                ),
            );
            push(
                out,
                format_args!(r#"<text class="y" x="{:.1}" y="{:.1}">{label}</text>"#, LEFT - 8.0, y + 4.0),
            );
        }
        for (value, label) in self.x.ticks.iter().filter(|(_, label)| !label.is_empty()) {
            let x = self.x_at(*value);
            let class = if x > WIDTH - 2.0 * RIGHT { "x last" } else { "x" };
            push(
                out,
                format_args!(
                    r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{:.1}"/>"#,
                    HEIGHT - BOTTOM
                ),
            );
            push(
                out,
                format_args!(
                    r#"<text class="{class}" x="{x:.1}" y="{:.1}">{label}</text>"#,
                    HEIGHT - BOTTOM + 20.0
                ),
            );
        }
    }

    fn draw_area(&self, out: &mut String, series: &Series, floor: &mut [f64]) {
        let top: Vec<(f64, f64)> =
            series.points.iter().zip(floor.iter()).map(|((x, value), below)| (*x, below + value)).collect();
        let bottom = series.points.iter().zip(floor.iter()).map(|((x, _), below)| (*x, *below)).rev();
        let path = self.path(top.iter().copied().chain(bottom));
        push(
            out,
            format_args!(
                r#"<path class="area {}" d="{path}Z"><title>{}</title></path>"#,
                series.class, series.name
            ),
        );
        floor.iter_mut().zip(&top).for_each(|(floor, (_, top))| *floor = *top);
    }

    fn path(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let mut path = String::new();
        for (place, (x, y)) in points.enumerate() {
            let letter = if place == 0 { 'M' } else { 'L' };
            push(&mut path, format_args!("{letter}{:.1} {:.1}", self.x_at(x), self.y_at(y)));
        }
        path
    }

    fn legend(&self) -> String {
        let mut out = String::from(r#"<p class="legend">"#);
        for series in self.stack.iter().chain(&self.series) {
            push(&mut out, format_args!(r#"<span><i class="{}"></i>{}</span>"#, series.class, series.name));
        }
        if !self.marks.is_empty() {
            out.push_str(r#"<span><i class="kill"></i>server killed</span>"#);
        }
        out.push_str("</p>");
        out
    }

    fn x_at(&self, value: f64) -> f64 {
        LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y_at(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.share(value) * (HEIGHT - TOP - BOTTOM)
    }
}

/// Microseconds as people say them.
pub fn duration_label(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{} s", trimmed(us / 1e6)),
        us if us >= 1e3 => format!("{} ms", trimmed(us / 1e3)),
        us => format!("{} µs", trimmed(us)),
    }
}

pub fn count_label(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        value if value >= 1e3 => format!("{}k", trimmed(value / 1e3)),
        value => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_highest_value() {
        let axis = Axis::linear(43.0, trimmed);
        assert_eq!(
            axis.ticks.iter().map(|tick| tick.1.as_str()).collect::<Vec<_>>(),
            ["0", "10", "20", "30", "40", "50"]
        );
        let axis = Axis::logarithmic(300.0, 20_000.0, duration_label);
        assert_eq!(
            axis.ticks.iter().map(|tick| tick.1.as_str()).collect::<Vec<_>>(),
            ["100 µs", "1 ms", "10 ms", "100 ms"]
        );
    }
}
