//! Models that load when the test says so.

use std::sync::{Arc, Mutex, mpsc};

use engine::{Backend, Error};
use node::{Loader, ModelSource, Node, Plan, Progress, Settings};

use crate::script::{Scripted, info, say};

/// Tells a loader what to do next.
pub(crate) enum Order {
    /// So much is loaded.
    Progress(f32),
    /// It can't be loaded.
    Fail(&'static str),
    /// It is ready.
    Finish,
}

struct Ordered(Mutex<mpsc::Receiver<Order>>);

impl Loader for Ordered {
    fn memory_needed(&self, _: &Plan) -> Result<u64, Error> {
        Ok(1)
    }

    fn load(&self, plan: Plan, mut progress: Progress) -> Result<Arc<dyn Backend>, Error> {
        let orders = self.0.lock().unwrap();
        loop {
            match orders.recv() {
                Ok(Order::Progress(share)) => progress(share),
                Ok(Order::Fail(reason)) => return Err(Error::Load(reason.to_owned())),
                Ok(Order::Finish) => {
                    return Ok(Scripted::with_info(info(&plan.name), |_| Ok(say(&["ok"]))));
                }
                Err(_) => return Err(Error::Load("the test is over".to_owned())),
            }
        }
    }
}

/// A node that begins to load these models, and who tells it how that goes.
pub(crate) async fn loading(models: &[&'static str]) -> (Node, mpsc::Sender<Order>) {
    let (orders, taken) = mpsc::channel();
    let sources = models.iter().map(|&name| ModelSource::Embedded {
        name: name.to_owned(),
        bytes: b"",
    });
    let settings = Settings {
        models: sources.collect(),
        ..Settings::default()
    };
    let loader = Arc::new(Ordered(Mutex::new(taken)));
    (Node::start_with(settings, loader).await.unwrap(), orders)
}
