//! Waiting for Heat. What an engine that died was at work on stays as it is, and is heard of no more; asked to go on,
//! another takes it over.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Progress, Report};
use crate::{
    Error, Session,
    heat::{self, Resource},
    seen::Made,
};

/// How often Heat is asked how far it is.
const POLL: Duration = Duration::from_millis(1500);
/// Without news for so many times as long as for an answer, Heat may have lost the engine that was at work.
const QUIET: u32 = 10;
/// Heat gives up by itself after an hour; an engine that died never does.
const LONGEST: Duration = Duration::from_secs(70 * 60);

/// Waits until Heat has finished with a stack, or it has gone; tells of every resource that changes. Without news for
/// long, asks Heat to go on.
pub(crate) async fn wait(session: &Session, name: &str, report: &Report) -> Result<(), Error> {
    let Some(mut stack) = heat::find(session, name).await? else { return Ok(()) };
    let mut watch = Watch::new(session.patience() * QUIET, Instant::now());
    loop {
        let made = Made { resources: heat::resources(session, &stack).await?, stack };
        for Resource { name, status, .. } in watch.news(&made.resources, Instant::now()) {
            report(Progress::Resource { stack: made.stack.name.clone(), name, status });
        }
        if !made.is_busy() {
            return Ok(());
        }
        match watch.next(Instant::now()) {
            Next::Wait => {}
            Next::GoOn => {
                let seconds = watch.quiet.as_secs();
                report(Progress::Doing(format!("no news of stack {name} for {seconds} s: asking Heat to go on")));
                heat::go_on(session, &made.stack).await?;
            }
            Next::GiveUp => {
                let (what, state) = (format!("stack {name}"), made.stack.status);
                return Err(Error::Endless { what, state, minutes: LONGEST.as_secs() / 60 });
            }
        }
        tokio::time::sleep(POLL).await;
        let Some(now) = heat::again(session, &made.stack).await? else { return Ok(()) };
        stack = now;
    }
}

/// What is known of a stack that Heat is at work on.
struct Watch {
    quiet: Duration,
    begun: Instant,
    /// When something last changed, or Heat was asked to go on.
    heard: Instant,
    /// Each resource's state.
    known: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Wait,
    GoOn,
    GiveUp,
}

impl Watch {
    fn new(quiet: Duration, now: Instant) -> Self {
        Self { quiet, begun: now, heard: now, known: BTreeMap::new() }
    }

    /// The resources that have changed.
    fn news(&mut self, resources: &[Resource], now: Instant) -> Vec<Resource> {
        let news = resources.iter().filter(|resource| {
            let before = self.known.insert(resource.name.clone(), resource.status.clone());
            // What was so before is no news.
            before.map_or(resource.status.ends_with("_IN_PROGRESS"), |before| before != resource.status)
        });
        let news: Vec<Resource> = news.cloned().collect();
        if !news.is_empty() {
            self.heard = now;
        }
        news
    }

    /// What is next while Heat is at work.
    fn next(&mut self, now: Instant) -> Next {
        if now - self.begun > LONGEST {
            return Next::GiveUp;
        }
        if now - self.heard <= self.quiet {
            return Next::Wait;
        }
        self.heard = now;
        Next::GoOn
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Resources that are made one after the other by an engine that may die.
    struct Heat {
        /// How many polls each takes still.
        left: Vec<u32>,
        lives: bool,
    }

    impl Heat {
        fn is_done(&self) -> bool {
            self.left.iter().all(|left| *left == 0)
        }

        fn works(&mut self) {
            if let Some(left) = self.left.iter_mut().find(|left| **left > 0).filter(|_| self.lives) {
                *left -= 1;
            }
        }

        fn shows(&self) -> Vec<Resource> {
            let begun = self.left.iter().position(|left| *left > 0).unwrap_or(self.left.len());
            let status = |at| if at < begun { "CREATE_COMPLETE" } else { "CREATE_IN_PROGRESS" };
            let resource =
                |at: usize| Resource { name: at.to_string(), status: status(at).into(), ..Resource::default() };
            (0..self.left.len().min(begun + 1)).map(resource).collect()
        }
    }

    proptest! {
        #[test]
        fn each_engine_that_dies_is_replaced_once_and_none_that_lives(
            left in vec(1u32..30, 1..8),
            deaths in vec(0u32..400, 0..6),
        ) {
            let begun = Instant::now();
            let (mut heat, mut watch) = (Heat { left, lives: true }, Watch::new(POLL * 30, begun));
            let (mut died, mut asked) = (0, 0);
            for poll in 0.. {
                if heat.is_done() {
                    break;
                }
                if heat.lives && deaths.contains(&poll) {
                    heat.lives = false;
                    died += 1;
                }
                heat.works();
                let now = begun + POLL * poll;
                watch.news(&heat.shows(), now);
                match watch.next(now) {
                    Next::Wait => {}
                    Next::GoOn => {
                        prop_assert!(!heat.lives, "nothing was to be taken over at poll {poll}");
                        heat.lives = true;
                        asked += 1;
                    }
                    Next::GiveUp => prop_assert!(false, "it was getting on"),
                }
            }
            prop_assert!(heat.is_done());
            prop_assert!(died - asked <= i32::from(!heat.lives), "{died} died, {asked} were replaced");
        }

        #[test]
        fn what_never_gets_on_comes_to_an_end(seconds in 1u64..10_000) {
            let (begun, quiet) = (Instant::now(), Duration::from_secs(seconds));
            let (mut watch, mut asked, mut now) = (Watch::new(quiet, begun), 0, begun);
            let heat = Heat { left: vec![1], lives: false };
            loop {
                watch.news(&heat.shows(), now);
                match watch.next(now) {
                    Next::Wait => {}
                    Next::GoOn => asked += 1,
                    Next::GiveUp => break,
                }
                now += POLL;
            }
            prop_assert!(now - begun <= LONGEST + POLL);
            prop_assert!(quiet * asked <= now - begun);
            prop_assert_eq!(asked == 0, quiet >= LONGEST);
        }
    }
}
