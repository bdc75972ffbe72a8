//! Where messages are composed: on threads of their own, few at a time, with a panic and a long run contained.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Messages composed at once. One that does not end keeps its thread, and its place.
const AT_ONCE_MAX: usize = 4;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// It panicked, or did not end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stuck;

/// The threads that compose.
pub struct Desk {
    places: Arc<Semaphore>,
}

impl Default for Desk {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE_MAX)) }
    }
}

impl Desk {
    /// Does some work that takes long for its size.
    ///
    /// # Errors
    /// [`Stuck`].
    pub async fn work<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Stuck> {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return Err(Stuck) };
        let working = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(place);
            done
        });
        match timeout(PATIENCE, working).await {
            Ok(Ok(done)) => Ok(done),
            outcome => {
                let cause = if outcome.is_err() { "takes too long" } else { "panics" };
                tracing::warn!(what, cause, "a message cannot be composed");
                Err(Stuck)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_contained_and_gives_its_place_back() {
        let desk = Desk::default();
        for _ in 0..=AT_ONCE_MAX {
            assert_eq!(desk.work("a test", || -> u8 { panic!("hostile") }).await, Err(Stuck));
        }
        assert_eq!(desk.work("a test", || 7).await, Ok(7));
    }
}
