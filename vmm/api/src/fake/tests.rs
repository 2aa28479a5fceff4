#![allow(clippy::unwrap_used, reason = "a harness fails by panicking")]

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use async_trait::async_trait;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use super::{
    FakeHypervisor,
    guest::{AGENT_PORT, RELAY_PORT},
};
use crate::{
    Blank, BlankSpec, Hypervisor, Machine,
    contract::{self, Capability, Harness, Kernel, Workload},
};

const COUNTER_PAGE: u32 = 7;
const BLOCK: u32 = 3;

#[tokio::test]
async fn fake_meets_the_hypervisor_contract() {
    contract::check(Arc::new(FakeHarness(FakeHypervisor::new()))).await;
}

#[derive(Debug)]
struct FakeHarness(FakeHypervisor);

#[derive(Debug)]
struct Counter {
    kernel: Kernel,
}

#[async_trait]
impl Harness for FakeHarness {
    fn has(&self, capability: Capability) -> bool {
        capability == Capability::Vsock
    }

    fn hypervisor(&self) -> &dyn Hypervisor {
        &self.0
    }

    fn blank_spec(&self) -> BlankSpec {
        BlankSpec {
            vcpus: 1,
            memory: 16 << 20,
            run_dir: std::env::temp_dir(),
        }
    }

    async fn blank(&self, kernel: Kernel) -> (Box<dyn Blank>, Box<dyn Workload>) {
        let blank = self.0.blank(self.blank_spec()).await.unwrap();
        (blank, Box::new(Counter { kernel }))
    }

    fn kernel(&self, _: Kernel) -> File {
        let file = File::from(memfd_create("kernel", MemfdFlags::CLOEXEC).unwrap());
        file.write_all_at(b"kernel", 0).unwrap();
        file
    }

    fn crash(&self, _: &dyn Machine) {
        self.0.crash_all();
    }

    fn vsock_ports(&self) -> (u32, u32) {
        (AGENT_PORT, 4000)
    }
}

#[async_trait]
impl Workload for Counter {
    async fn ready(&mut self, machine: &dyn Machine) {
        assert_eq!(call(&mut relay(machine).await, "ping").await, "ping");
    }

    async fn step(&mut self, machine: &dyn Machine) -> u32 {
        machine.resume().await.unwrap();
        let mut stream = relay(machine).await;
        let before = call(&mut stream, &format!("read {COUNTER_PAGE}")).await;
        let before = before.parse().unwrap_or(0);
        let after = before + 1;
        let command = format!("write {COUNTER_PAGE} {after}");
        assert_eq!(call(&mut stream, &command).await, "ok");
        if self.kernel == Kernel::CountingWithDisk {
            let command = format!("disk-write {BLOCK} {after}");
            assert_eq!(call(&mut stream, &command).await, "ok");
        }
        before
    }

    async fn reset(&mut self, machine: &dyn Machine) {
        relay(machine).await.write_all(b"reset\n").await.unwrap();
    }

    fn pages(&self) -> Vec<u64> {
        vec![COUNTER_PAGE.into()]
    }

    fn block(&self) -> u64 {
        BLOCK.into()
    }
}

/// Opens a stream to the guest's commands.
async fn relay(machine: &dyn Machine) -> BufReader<UnixStream> {
    let mut stream = machine.dial(RELAY_PORT).await.unwrap();
    stream.write_all(&[b'R', 1, 0, 80]).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 0);
    BufReader::new(stream)
}

async fn call(stream: &mut BufReader<UnixStream>, command: &str) -> String {
    stream
        .write_all(format!("{command}\n").as_bytes())
        .await
        .unwrap();
    let mut response = String::new();
    stream.read_line(&mut response).await.unwrap();
    response.trim_end().to_owned()
}
