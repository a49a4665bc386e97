//! Child processes: started with their output in a file, stopped by their own process id, never left behind.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Duration, sleep, timeout};

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let file = std::fs::File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the server `answers`; it is asked every few milliseconds.
    pub async fn until(&mut self, mut answers: impl AsyncFnMut() -> bool) -> Result<()> {
        let waiting = async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    bail!("the server ended with {status} before it was ready:\n{}", self.log_tail());
                }
                if answers().await {
                    return Ok(());
                }
                sleep(POLL).await;
            }
        };
        match timeout(READY_TIMEOUT, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("the server is not ready after {READY_TIMEOUT:?}:\n{}", self.log_tail()),
        }
    }

    pub fn send_kill(&self) -> Result<()> {
        Ok(kill_process(self.pid()?, Signal::KILL)?)
    }

    /// SIGSTOP: it does nothing more until `wake`, and nobody is told.
    pub fn pause(&self) -> Result<()> {
        Ok(kill_process(self.pid()?, Signal::STOP)?)
    }

    /// SIGCONT.
    pub fn wake(&self) -> Result<()> {
        Ok(kill_process(self.pid()?, Signal::CONT)?)
    }

    /// SIGKILL, and its remains taken away.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM; the process must end well by itself.
    pub async fn stop(&mut self) -> Result<()> {
        kill_process(self.pid()?, Signal::TERM)?;
        let ending = async {
            loop {
                match self.child.try_wait()? {
                    Some(status) => return anyhow::Ok(status),
                    None => sleep(POLL).await,
                }
            }
        };
        match timeout(STOP_TIMEOUT, ending).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(status) => bail!("after SIGTERM the server ended with {}:\n{}", status?, self.log_tail()),
            Err(_) => {
                self.kill()?;
                bail!("the server did not end within {STOP_TIMEOUT:?} of SIGTERM:\n{}", self.log_tail())
            }
        }
    }

    fn pid(&self) -> Result<Pid> {
        Pid::from_raw(self.child.id() as i32).context("a process without id")
    }

    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has usually ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end; what it printed, or an error with all of it.
pub fn run_to_end(command: Command) -> Result<String> {
    run_with(command, Stdio::null())
}

/// The same for a command that reads something.
pub fn run_with(mut command: Command, input: Stdio) -> Result<String> {
    let output = command
        .stdin(input)
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status {
        status if status.success() => Ok(said),
        status => Err(failure(&command, status, &said, &String::from_utf8_lossy(&output.stderr))),
    }
}

fn failure(command: &Command, status: ExitStatus, stdout: &str, stderr: &str) -> anyhow::Error {
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    let program = command.get_program().to_string_lossy().into_owned();
    let tail: Vec<&str> = stdout.lines().chain(stderr.lines()).collect();
    let tail = tail[tail.len().saturating_sub(20)..].join("\n");
    anyhow!("`{program} {}` ended with {status}:\n{tail}", arguments.join(" "))
}

/// An address nobody listens on at the moment.
pub fn free_address() -> Result<SocketAddr> {
    free_address_at(Ipv4Addr::LOCALHOST.into())
}

/// The same at one address of this machine.
pub fn free_address_at(ip: IpAddr) -> Result<SocketAddr> {
    let mut some = (0..TRIED).map(|_| SocketAddr::new(ip, rand::random_range(PORTS)));
    some.find(|address| TcpListener::bind(address).is_ok())
        .with_context(|| format!("no port is free at {ip}"))
}

/// None of those that are given to whoever asks for any port: what else runs here would have it before it is listened on, or while
/// a server that was killed is away.
const PORTS: Range<u16> = 10_000..32_000;
const TRIED: usize = 1_000;
