//! How long outcomes that stay open are borne with.

use std::time::Duration;

use crate::up::UpError;

/// So many in a row; then the last one's cause is told.
const MOST: u32 = 4;
const PAUSE: Duration = Duration::from_millis(1500);

/// Counts outcomes that stay open, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Patience(u32);

impl Patience {
    /// Waits a while when looking at the project again may help; otherwise the error stands.
    pub async fn bear(&mut self, result: Result<(), UpError>) -> Result<(), UpError> {
        let Err(error) = result else {
            self.0 = 0;
            return Ok(());
        };
        let open = matches!(&error, UpError::Cloud(error) if error.is_open());
        if !open || self.0 == MOST {
            return Err(error);
        }
        self.0 += 1;
        tracing::info!(%error, "its outcome is open");
        tokio::time::sleep(PAUSE * self.0).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[tokio::test(start_paused = true)]
    async fn what_stays_open_ends_with_its_cause_and_what_does_not_ends_at_once() {
        let open = || Err(Error::Moving { what: "it".into() }.into());
        let mut patience = Patience::default();
        for _ in 0..2 {
            for _ in 0..MOST {
                patience.bear(open()).await.unwrap();
            }
            patience.bear(Ok(())).await.unwrap();
        }
        for _ in 0..MOST {
            patience.bear(open()).await.unwrap();
        }
        assert!(patience.bear(open()).await.unwrap_err().to_string().starts_with("it is being changed"));
        assert!(Patience::default().bear(Err(Error::NoProject.into())).await.is_err());
    }
}
