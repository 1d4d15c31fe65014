//! Golden dialogues between a client of one era and a child of the other, `tests/data/eras/*.txt`:
//! lines with `>` are what happens to the translator, those with `<` what it says then. `BLESS=1`
//! writes what it says into the files, to be read before it is committed. A dialogue can
//!
//! ```text
//! == TITLE          a new translator, which has begun
//! > client JSON     a message of the client's side
//! > child JSON      a message of the child
//! > wait SECONDS    time passes, in steps of ten milliseconds
//! < failed WHY      in brackets what has to be redacted
//! ```

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Out, Translator};

/// Fine enough for everything that a translator waits for.
const STEP: Duration = Duration::from_millis(10);

/// Plays a file of dialogues, each with a translator of its own, and holds it to what is written.
pub(super) fn play(file: &str, new: impl Fn(Instant) -> Box<dyn Translator>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/eras")
        .join(file);
    let golden = fs::read_to_string(&path).expect("a file of dialogues");
    let mut played = String::new();
    let mut stage: Option<Stage> = None;
    for line in golden.lines() {
        if line.starts_with('<') {
            continue;
        }
        played.push_str(line);
        played.push('\n');
        if line.starts_with("== ") {
            stage = Some(Stage::new(&new));
        } else if let Some(event) = line.strip_prefix("> ") {
            let stage = stage.as_mut().expect("a title before the first event");
            stage.take(event);
        } else {
            continue; // a comment
        }
        let stage = stage.as_mut().expect("a stage since the title");
        played.push_str(&stage.said());
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &played).expect("a file that can be written");
    }
    assert!(
        played.contains("\n== ") || played.starts_with("== "),
        "no dialogue in {file}"
    );
    for (no, (is, wanted)) in played.lines().zip(golden.lines()).enumerate() {
        assert_eq!(is, wanted, "{file}:{}", no + 1);
    }
    assert_eq!(played.lines().count(), golden.lines().count(), "{file}");
}

struct Stage {
    translator: Box<dyn Translator>,
    now: Instant,
    out: Vec<Out>,
}

impl Stage {
    fn new(new: &impl Fn(Instant) -> Box<dyn Translator>) -> Self {
        let now = Instant::now();
        let (mut translator, mut out) = (new(now), Vec::new());
        translator.begin(now, &mut out);
        Self {
            translator,
            now,
            out,
        }
    }

    fn take(&mut self, event: &str) {
        let (what, rest) = event.split_once(' ').expect("an event with a text");
        match what {
            "client" => self.translator.client_says(rest, self.now, &mut self.out),
            "child" => self.translator.child_says(rest, self.now, &mut self.out),
            "wait" => self.wait(Duration::from_secs_f64(rest.parse().expect("seconds"))),
            _ => panic!("unknown event: {event}"),
        }
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = (self.now + STEP).min(until);
            if self.translator.due().is_some_and(|due| self.now >= due) {
                self.translator.tick(self.now, &mut self.out);
            }
        }
    }

    fn said(&mut self) -> String {
        let line = |out: Out| match out {
            Out::Child(line) => format!("< child {line}\n"),
            Out::Client(line) => format!("< client {line}\n"),
            Out::Failed(failure) => {
                let told = failure.told(|said, _| format!("[{said}]"));
                format!("< failed {told}\n")
            }
        };
        self.out.drain(..).map(line).collect()
    }
}
