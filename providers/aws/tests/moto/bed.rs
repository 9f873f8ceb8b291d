//! moto, and what is there in it, asked past the provider.

use ballast_aws::provider::AwsProvider;
use ballast_aws::rate::Limits;
use ballast_aws_fake::{Moto, Service};
use ballast_provider::ProviderError;

use crate::support;

pub(crate) struct Bed {
    pub(crate) moto: Moto,
}

impl Bed {
    pub(crate) async fn new(nodes: usize) -> Self {
        let moto = Moto::start(nodes).await;
        Self {
            moto: moto.unwrap_or_else(|why| panic!("{why}")),
        }
    }

    pub(crate) async fn start(&self) -> AwsProvider {
        let started = support::start(&self.moto, Limits::NONE, self.moto.nodes()).await;
        started.unwrap()
    }

    pub(crate) async fn add_node(&mut self) {
        self.moto.add_node().await.unwrap();
    }

    pub(crate) async fn retarget(&self, provider: &AwsProvider) -> Result<(), ProviderError> {
        support::retarget(provider, self.moto.nodes()).await
    }

    /// The calls of something, by action, in order.
    pub(crate) async fn calls_of<T>(&self, work: impl Future<Output = T>) -> (T, Vec<String>) {
        self.moto.reset_calls();
        let result = work.await;
        let calls = self.moto.calls().into_iter().map(|call| call.action);
        (result, calls.collect())
    }

    /// The number of targets of each target group.
    pub(crate) async fn targets(&self) -> Vec<usize> {
        let mut all = Vec::new();
        for arn in self.texts("DescribeTargetGroups", "TargetGroupArn").await {
            let request = format!("Action=DescribeTargetHealth&TargetGroupArn={arn}");
            let answer = self.moto.ask(Service::Elb, &request).await.unwrap();
            all.push(texts(&answer, "Id").len());
        }
        all
    }

    /// The ports of all listeners, in order.
    pub(crate) async fn listeners(&self) -> Vec<u16> {
        let mut all = Vec::new();
        for arn in self.texts("DescribeLoadBalancers", "LoadBalancerArn").await {
            let request = format!("Action=DescribeListeners&LoadBalancerArn={arn}");
            let answer = self.moto.ask(Service::Elb, &request).await.unwrap();
            let ports = texts(&answer, "Port");
            all.extend(ports.iter().map(|port| port.parse::<u16>().unwrap()));
        }
        all.sort_unstable();
        all
    }

    /// The names of what Ballast has made, and its rules in the nodes' group.
    pub(crate) async fn left(&self) -> Vec<String> {
        let mut left = self
            .texts("DescribeLoadBalancers", "LoadBalancerName")
            .await;
        left.extend(self.texts("DescribeTargetGroups", "TargetGroupName").await);
        let request = "Action=DescribeSecurityGroups";
        let groups = self.moto.ask(Service::Ec2, request).await.unwrap();
        let names = texts(&groups, "groupName").into_iter();
        left.extend(names.filter(|name| name.starts_with("bl-")));
        let request =
            "Action=DescribeSecurityGroups&Filter.1.Name=group-name&Filter.1.Value.1=nodes";
        let nodes = self.moto.ask(Service::Ec2, request).await.unwrap();
        let (_, ingress) = nodes.split_once("<ipPermissions>").unwrap_or_default();
        let (ingress, _) = ingress.split_once("</ipPermissions>").unwrap_or_default();
        left.extend(texts(ingress, "groupId"));
        left
    }

    async fn texts(&self, action: &str, element: &str) -> Vec<String> {
        let request = format!("Action={action}");
        let answer = self.moto.ask(Service::Elb, &request).await.unwrap();
        texts(&answer, element)
    }
}

/// The texts of all elements of this name.
fn texts(xml: &str, name: &str) -> Vec<String> {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    let rest = xml.split(&start).skip(1);
    let texts = rest.filter_map(|rest| rest.split_once(&end));
    texts.map(|(text, _)| text.trim().to_owned()).collect()
}
