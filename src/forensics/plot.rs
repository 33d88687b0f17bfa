//! The plot of the cost of each delivery of a span, as recorded and as replayed.
//!
//! Owns the drawing, as SVG. It must never fetch anything, nor leave a delivery that differs without a mark.

use std::fmt::Write;

use maud::{Markup, html};

use super::cost::Cost;
use crate::transcript::Position;

/// The size of the drawing; it grows and shrinks with the page.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 280.0;
/// The edges of the plot in the drawing.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 948.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 236.0;
/// Each delivery has a mark of its own, which says what it is, up to this number.
const MARKED: usize = 400;
/// Labels of deliveries that differ keep this distance.
const LABEL_WIDTH: f64 = 58.0;

/// The plot, with the deliveries marked in which something differs. The axis of the cost is logarithmic, as a start costs a
/// thousand times what a message does.
pub(super) fn plot(costs: &[Cost], differing: &[Position]) -> Markup {
    let values = costs.iter().flat_map(|cost| [cost.recorded, cost.replayed]).flatten().map(exponent);
    let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    if !low.is_finite() {
        return html! { p.quiet { "No delivery has a cost." } };
    }
    let up = Up { low: low.floor(), high: high.ceil().max(low.floor() + 1.0) };
    let across = Across { count: costs.len() };
    // A delivery that was not replayed is without a cross.
    let differs = |cost: &Cost| {
        let is_same = cost.replayed.is_none() || cost.recorded == cost.replayed;
        !is_same || differing.contains(&cost.position)
    };
    let marked = costs.iter().filter(|cost| differs(cost)).count();
    let differing_at =
        || costs.iter().enumerate().filter(|(_, cost)| differs(cost)).map(|(at, cost)| (across.at(at), cost));
    // A snapshot at the end costs nothing, and so has no place of its own.
    let after = differing.iter().find(|position| costs.last().is_some_and(|last| **position > last.position));
    let first_and_last = [costs.first(), costs.last()].map(|cost| cost.map_or(0, |cost| cost.position));
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-labelledby="plot-title plot-text" {
            title id="plot-title" { "Computrons of each delivery" }
            desc id="plot-text" {
                (costs.len()) " deliveries from position " (first_and_last[0]) " to " (first_and_last[1]) "; "
                "in " (marked) " of them something differs. The numbers are in the table below."
            }
            @for (power, y) in up.powers() {
                line.grid x1=(LEFT) x2=(RIGHT) y1=(two(y)) y2=(two(y)) {}
                text x=(LEFT - 8.0) y=(two(y + 4.0)) text-anchor="end" { "10" (superscript(power)) }
            }
            @for (x, _) in differing_at() {
                line.differs x1=(two(x)) x2=(two(x)) y1=(TOP) y2=(BOTTOM) {}
            }
            @for (x, position) in labels(differing_at()) {
                text.at x=(two(x)) y=(TOP - 8.0) text-anchor="middle" { "≠ " (position) }
            }
            @if let Some(position) = after {
                line.differs x1=(RIGHT) x2=(RIGHT) y1=(TOP) y2=(BOTTOM) {}
                text.at x=(RIGHT) y=(TOP - 20.0) text-anchor="end" { "≠ " (position) }
            }
            (marks(costs, &across, &up))
            text x=(LEFT) y=(BOTTOM + 18.0) { "position " (first_and_last[0]) }
            text x=(RIGHT) y=(BOTTOM + 18.0) text-anchor="end" { (first_and_last[1]) }
            (legend())
        }
    }
}

/// The costs: a mark for each while there are few, else a line.
fn marks(costs: &[Cost], across: &Across, up: &Up) -> Markup {
    html! {
        @if costs.len() <= MARKED {
            @for (at, cost) in costs.iter().enumerate() {
                g {
                    title { (said(cost)) }
                    @if let Some(recorded) = cost.recorded {
                        circle.recorded cx=(two(across.at(at))) cy=(two(up.at(recorded))) r="4.5" {}
                    }
                    @if let Some(replayed) = cost.replayed {
                        path.replayed d=(cross(across.at(at), up.at(replayed))) {}
                    }
                }
            }
        } @else {
            path.recorded d=(polyline(costs, across, |value| up.at(value), |cost| cost.recorded)) {}
            path.replayed stroke-dasharray="2 3" d=(polyline(costs, across, |value| up.at(value), |cost| cost.replayed)) {}
        }
    }
}

fn legend() -> Markup {
    let y = BOTTOM + 36.0;
    html! {
        circle.recorded cx=(LEFT + 6.0) cy=(y - 4.0) r="4.5" {}
        text x=(LEFT + 16.0) y=(y) { "recorded" }
        path.replayed d=(cross(LEFT + 106.0, y - 4.0)) {}
        text x=(LEFT + 116.0) y=(y) { "replayed" }
        line.differs x1=(LEFT + 200.0) x2=(LEFT + 224.0) y1=(y - 4.0) y2=(y - 4.0) {}
        text x=(LEFT + 232.0) y=(y) { "≠ something differs, with the position" }
    }
}

/// The labels of deliveries that differ, without those for which there is no room.
fn labels<'a>(differing: impl Iterator<Item = (f64, &'a Cost)>) -> Vec<(f64, Position)> {
    let mut label_end = 0.0;
    let labels = differing.filter_map(|(x, cost)| {
        let is_free = x - LABEL_WIDTH / 2.0 >= label_end;
        is_free.then(|| label_end = x + LABEL_WIDTH / 2.0);
        is_free.then_some((x, cost.position))
    });
    labels.collect()
}

/// The vertical axis: powers of ten, from the lowest to the highest.
struct Up {
    low: f64,
    high: f64,
}

impl Up {
    fn at(&self, value: u64) -> f64 {
        self.of_power(exponent(value))
    }

    fn of_power(&self, power: f64) -> f64 {
        BOTTOM - (power - self.low) / (self.high - self.low) * (BOTTOM - TOP)
    }

    /// Each power with its height.
    fn powers(&self) -> Vec<(f64, f64)> {
        let powers = std::iter::successors(Some(self.low), |power| Some(power + 1.0));
        powers.take_while(|power| *power <= self.high).map(|power| (power, self.of_power(power))).collect()
    }
}

/// The horizontal axis: deliveries in their order.
struct Across {
    count: usize,
}

impl Across {
    #[expect(clippy::cast_precision_loss, reason = "a place on paper")]
    fn at(&self, index: usize) -> f64 {
        let inside = 12.0;
        let steps = self.count.saturating_sub(1).max(1) as f64;
        LEFT + inside + index as f64 / steps * (RIGHT - LEFT - 2.0 * inside)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a place on paper")]
fn exponent(value: u64) -> f64 {
    (value.max(1) as f64).log10()
}

fn said(cost: &Cost) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    format!("position {}: recorded {}, replayed {}", cost.position, number(cost.recorded), number(cost.replayed))
}

fn cross(x: f64, y: f64) -> String {
    let (left, right, top, bottom) = (two(x - 4.0), two(x + 4.0), two(y - 4.0), two(y + 4.0));
    format!("M{left} {top}L{right} {bottom}M{left} {bottom}L{right} {top}")
}

fn polyline(costs: &[Cost], across: &Across, up: impl Fn(u64) -> f64, of: impl Fn(&Cost) -> Option<u64>) -> String {
    let mut path = String::new();
    let mut is_down = false;
    for (at, cost) in costs.iter().enumerate() {
        match of(cost) {
            None => is_down = false,
            Some(value) => {
                let command = if is_down { 'L' } else { 'M' };
                let _ = write!(path, "{command}{} {}", two(across.at(at)), two(up(value)));
                is_down = true;
            }
        }
    }
    path
}

fn superscript(power: f64) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    format!("{power:.0}").bytes().map(|digit| DIGITS[usize::from(digit.saturating_sub(b'0')).min(9)]).collect()
}

fn two(number: f64) -> String {
    format!("{number:.2}")
}
