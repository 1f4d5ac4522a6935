//! What the machine says on its console: each change at once, and all of it every minute, for a cloud keeps only the
//! last part of what was said.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    sync::{Mutex, PoisonError},
};

/// What there is to say, in the order of a minute's summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// The program and its version.
    Version,
    /// Who the machine is, by its configuration; or what is wrong with that.
    Config,
    /// Links and addresses.
    Network,
    /// The state volume.
    State,
    /// What is wrong with the boot partition.
    Boot,
    /// The API's health.
    Api,
    /// The fingerprint of the cluster's authority.
    Authority,
    /// What went wrong last.
    Error,
}

impl Topic {
    fn label(self) -> &'static str {
        match self {
            Self::Version => "",
            Self::Config => "configuration: ",
            Self::Network => "network: ",
            Self::State => "state: ",
            Self::Boot => "boot partition: ",
            Self::Api => "API ",
            Self::Authority => "CA sha256 ",
            Self::Error => "last error: ",
        }
    }
}

/// The console. Clones of its reference may speak from any thread.
pub struct Console {
    said: Mutex<BTreeMap<Topic, String>>,
    out: Mutex<Box<dyn Write + Send>>,
}

impl Console {
    /// `/dev/console`; standard error where there is none.
    pub fn open() -> Self {
        match File::options().write(true).open("/dev/console") {
            Ok(file) => Self::to(file),
            Err(_) => Self::to(std::io::stderr()),
        }
    }

    /// A console that writes there.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        Self { said: Mutex::default(), out: Mutex::new(Box::new(out)) }
    }

    /// Sets a topic's words, and says them if they are new.
    pub fn set(&self, topic: Topic, words: impl Into<String>) {
        let words = words.into();
        let old = self.said().insert(topic, words.clone());
        if old.as_ref() != Some(&words) {
            self.line(&format!("{}{words}", topic.label()));
        }
    }

    /// Says something once.
    pub fn say(&self, words: &str) {
        self.line(words);
    }

    /// Says everything again.
    pub fn repeat(&self) {
        let all: Vec<String> = self.said().iter().map(|(topic, words)| format!("{}{words}", topic.label())).collect();
        all.iter().for_each(|words| self.line(words));
    }

    fn said(&self) -> std::sync::MutexGuard<'_, BTreeMap<Topic, String>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One write for each line, so that the kernel's own lines do not fall into it.
    fn line(&self, words: &str) {
        let mut text = String::new();
        for line in words.lines() {
            // A name from outside must not move the cursor of whoever looks.
            text.push_str("rastos: ");
            text.extend(line.chars().map(|c| if c.is_control() { '?' } else { c }));
            text.push('\n');
        }
        // A console that takes nothing is no reason to stop.
        let _lost = self.out.lock().unwrap_or_else(PoisonError::into_inner).write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_change_is_said_once_and_again_each_minute() {
        let paper = Paper::default();
        let console = Console::to(paper.clone());
        console.set(Topic::Authority, "ab");
        console.set(Topic::Version, "rastOS 1");
        console.set(Topic::Authority, "ab");
        console.repeat();
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let line = "rastos: CA sha256 ab\n";
        assert_eq!(text, format!("{line}rastos: rastOS 1\nrastos: rastOS 1\n{line}"));
    }

    #[test]
    fn nobody_s_name_moves_the_cursor() {
        let paper = Paper::default();
        Console::to(paper.clone()).say("a\u{1b}[2Jb\nc");
        assert_eq!(String::from_utf8(paper.0.lock().unwrap().clone()).unwrap(), "rastos: a?[2Jb\nrastos: c\n");
    }
}
