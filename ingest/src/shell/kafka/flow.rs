//! Whether messages are read, or rows wait for the commit before them.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;

use super::{Result, Shell};

/// How long the client is left alone when rows wait for the commit before them. One that is paused throws away what
/// it has fetched, and reads on up to a second after it may again; a commit is mostly answered in milliseconds.
const HELD_BACK_MAX: Duration = Duration::from_secs(1);

/// Whether messages are read.
#[derive(Clone, Copy)]
pub(super) enum Flow {
    Open,
    /// Not now: rows wait since then.
    HeldBack(Instant),
    /// Not for a while. The client is polled, but gives no message.
    Paused,
}

impl Shell<'_> {
    pub(super) fn hold_back(&mut self) -> Result<()> {
        match self.flow {
            Flow::Open => self.flow = Flow::HeldBack(Instant::now()),
            Flow::HeldBack(_) => {}
            // Partitions came that are not paused.
            Flow::Paused => self.pause(true)?,
        }
        Ok(())
    }

    pub(super) fn read_on(&mut self) -> Result<()> {
        if let Flow::Paused = self.flow {
            tracing::info!("reading goes on");
            self.pause(false)?;
        }
        self.flow = Flow::Open;
        Ok(())
    }

    /// True while nothing is to be read, for as long as that is short.
    pub(super) fn is_held_back(&mut self) -> Result<bool> {
        let Flow::HeldBack(since) = self.flow else { return Ok(false) };
        let is_short = since.elapsed() < HELD_BACK_MAX;
        if is_short {
            std::thread::sleep(Duration::from_millis(1));
        } else {
            self.flow = Flow::Paused;
            tracing::info!("reading pauses: enough rows wait for the commit before them");
            self.pause(true)?;
        }
        Ok(is_short)
    }

    fn pause(&self, pause: bool) -> Result<()> {
        self.settings.metrics.paused.set(i64::from(pause));
        let list = self.list(&self.machine.reading());
        let done = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        Ok(done?)
    }
}
