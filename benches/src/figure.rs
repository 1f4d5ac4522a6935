//! One line of the table, and the statistics that lines are made of.

use std::time::Duration;

/// What was promised, what was measured, and what a peer does.
pub struct Row {
    figure: String,
    target: String,
    value: String,
    peer: String,
    held: Option<bool>,
}

impl Row {
    /// A figure with a target.
    pub fn judged(figure: &str, target: &str, held: bool, value: String, peer: String) -> Self {
        Self { figure: figure.into(), target: target.into(), value, peer, held: Some(held) }
    }

    /// A figure without one, to compare.
    pub fn told(figure: &str, value: String, peer: String) -> Self {
        Self { figure: figure.into(), target: "-".into(), value, peer, held: None }
    }

    /// A figure that could not be measured, which is a failure.
    pub fn broken(figure: &str, error: &anyhow::Error) -> Self {
        Self::judged(figure, "measured", false, format!("{error:#}"), String::new())
    }

    /// Whether the target was missed.
    pub fn fails(&self) -> bool {
        self.held == Some(false)
    }
}

/// Prints the table.
pub fn print(rows: &[Row]) {
    let head = ["FIGURE", "TARGET", "VALUE", "PEER"].map(str::to_owned);
    let lines: Vec<_> =
        rows.iter().map(|r| ([&r.figure, &r.target, &r.value, &r.peer].map(String::clone), r.held)).collect();
    let width = |i: usize| lines.iter().map(|(cells, _)| cells[i].chars().count()).max().unwrap_or(0).max(6);
    let line = |cells: &[String; 4], verdict: &str| {
        let padded: Vec<_> =
            cells.iter().enumerate().map(|(i, cell)| format!("{cell:<width$}", width = width(i))).collect();
        println!("{}  {verdict}", padded.join("  "));
    };
    line(&head, "");
    for (cells, held) in &lines {
        line(
            cells,
            match held {
                Some(true) => "PASS",
                Some(false) => "FAIL",
                None => "",
            },
        );
    }
}

/// Times of one thing, done again and again.
#[derive(Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
        self.0.sort();
    }

    /// The median, in milliseconds.
    pub fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
    }

    /// The shortest, in milliseconds.
    pub fn min(&self) -> f64 {
        self.0.first().map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
    }

    /// Median and minimum in words.
    pub fn words(&self) -> String {
        format!("{:.1} ms (min {:.1})", self.median(), self.min())
    }

    /// How many times as long as `other` this takes, by median and by minimum.
    pub fn over(&self, other: &Self) -> (f64, f64) {
        (self.median() / other.median(), self.min() / other.min())
    }
}
