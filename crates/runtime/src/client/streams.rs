//! Descriptors as the streams of a [`Process`].

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::unix::pipe,
};

use crate::{Error, Exit, Process, Result, helper, protocol::Streams};

/// Builds a process from the descriptors that `which` announces, in its order. `leave` is called when its
/// standard input is dropped.
pub(super) fn process(
    which: Streams,
    fds: Vec<OwnedFd>,
    wait: BoxFuture<'static, Result<Exit>>,
    leave: Option<Box<dyn Fn() + Send>>,
) -> Result<Process> {
    let mut fds = fds.into_iter();
    let mut take = |announced: bool| -> Result<Option<OwnedFd>> {
        if !announced {
            return Ok(None);
        }
        fds.next().map(Some).ok_or_else(|| Error::Helper("a stream is missing".into()))
    };
    let (stdin, stdout, stderr, master) =
        (take(which.stdin)?, take(which.stdout)?, take(which.stderr)?, take(which.master)?);
    let doing = || Error::io("read a process's streams");
    let master = match master {
        Some(fd) => Some(Terminal::new(fd).map_err(doing())?),
        None => None,
    };
    let receiver = |fd: OwnedFd| pipe::Receiver::from_owned_fd(fd).map_err(doing());
    let stdin: Option<Box<dyn AsyncWrite + Send + Unpin>> = match (stdin, &master) {
        (Some(fd), _) => Some(Box::new(pipe::Sender::from_owned_fd(fd).map_err(doing())?)),
        (None, Some(master)) => Some(Box::new(master.clone())),
        (None, None) => None,
    };
    let stdout: Box<dyn AsyncRead + Send + Unpin> = match (stdout, &master) {
        (Some(fd), _) => Box::new(receiver(fd)?),
        (None, Some(master)) => Box::new(master.clone()),
        (None, None) => Box::new(tokio::io::empty()),
    };
    let stderr = match stderr {
        Some(fd) => Some(Box::new(receiver(fd)?) as Box<dyn AsyncRead + Send + Unpin>),
        None => None,
    };
    let resize = Box::new(move |columns, rows| {
        if let Some(Terminal(fd)) = &master {
            let _ = helper::resize(fd.get_ref().as_fd(), columns, rows);
        }
    });
    let stdin = stdin.map(|inner| Box::new(Leaving { inner, leave }) as Box<dyn AsyncWrite + Send + Unpin>);
    Ok(Process { stdin, stdout, stderr, resize, wait })
}

/// Tells when it is dropped.
struct Leaving {
    inner: Box<dyn AsyncWrite + Send + Unpin>,
    leave: Option<Box<dyn Fn() + Send>>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(leave) = &self.leave {
            leave();
        }
    }
}

impl AsyncWrite for Leaving {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The master of a terminal: both directions in one.
#[derive(Clone)]
struct Terminal(Arc<AsyncFd<std::fs::File>>);

impl Terminal {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self(Arc::new(crate::sys::register(std::fs::File::from(fd))?)))
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            match guard.try_io(|fd| fd.get_ref().read(buf.initialize_unfilled())) {
                Ok(Ok(read)) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                // The last process has left the terminal: its end of file.
                Ok(Err(e)) if e.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|fd| fd.get_ref().write(buf)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
