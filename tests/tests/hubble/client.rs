//! A client of our own, in a network namespace.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use agent_hubble_proto::flow::Flow;
use agent_hubble_proto::observer::get_flows_response::ResponseTypes;
use agent_hubble_proto::observer::observer_client::ObserverClient;
use agent_hubble_proto::observer::{
    GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNodesRequest, Node,
    ServerStatusRequest, ServerStatusResponse,
};
use agent_hubble_proto::peer::peer_client::PeerClient;
use agent_hubble_proto::peer::{ChangeNotification, NotifyRequest};
use anyhow::{Context, Result, bail, ensure};
use futures::stream;
use http::uri::PathAndQuery;
use ringfence_lab::lab::Netns;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;
use tonic_reflection::pb::{v1, v1alpha};

/// For an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// In which a stream that ends would have ended.
const MOMENT: Duration = Duration::from_secs(1);

/// Each call makes a connection.
pub(crate) struct Client<'a> {
    host: &'a Netns,
    endpoint: Endpoint,
}

impl<'a> Client<'a> {
    pub(crate) fn at(host: &'a Netns, address: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(address.to_owned())?;
        Ok(Self { host, endpoint })
    }

    pub(crate) fn by_tls(
        host: &'a Netns,
        address: &str,
        name: &str,
        authority: PathBuf,
        identity: Option<PathBuf>,
    ) -> Result<Self> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(fs::read(authority)?))
            .domain_name(name);
        if let Some(files) = identity {
            let certificate = fs::read(files.with_extension("pem"))?;
            let key = fs::read(files.with_extension("key"))?;
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?;
        Ok(Self { host, endpoint })
    }

    fn call<T, F>(&self, call: impl FnOnce(Channel) -> F + Send) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>>,
    {
        self.host.within(|| {
            runtime()?.block_on(async {
                let answer = async {
                    let channel = self.endpoint.connect().await?;
                    call(channel).await
                };
                timeout(PATIENCE, answer).await.context("no answer")?
            })
        })
    }

    /// All of them; each has an envelope.
    pub(crate) fn flows(&self, request: GetFlowsRequest) -> Result<Vec<Flow>> {
        self.call(async move |channel| {
            let mut client = ObserverClient::new(channel);
            let mut stream = client.get_flows(request).await?.into_inner();
            let mut flows = Vec::new();
            while let Some(response) = stream.message().await? {
                flows.extend(flow(response)?);
            }
            Ok(flows)
        })
    }

    /// The first flow of a stream that need not end.
    pub(crate) fn first(&self, request: GetFlowsRequest) -> Result<Flow> {
        self.first_while(request, || {})
    }

    /// The first flow that comes after what is done when the stream is there.
    pub(crate) fn first_while(
        &self,
        request: GetFlowsRequest,
        work: impl FnOnce() + Send,
    ) -> Result<Flow> {
        self.call(async move |channel| {
            let mut client = ObserverClient::new(channel);
            let mut stream = client.get_flows(request).await?.into_inner();
            work();
            loop {
                let response = stream.message().await?.context("the stream has ended")?;
                if let Some(flow) = flow(response)? {
                    return Ok(flow);
                }
            }
        })
    }

    /// Why it is.
    pub(crate) fn refused(&self, request: GetFlowsRequest) -> Result<Status> {
        self.call(async move |channel| {
            match ObserverClient::new(channel).get_flows(request).await {
                Ok(_) => bail!("it is answered"),
                Err(status) => Ok(status),
            }
        })
    }

    pub(crate) fn status(&self) -> Result<ServerStatusResponse> {
        self.call(async |channel| {
            let mut client = ObserverClient::new(channel);
            let answer = client.server_status(ServerStatusRequest {}).await?;
            // One that is newer than its own makes the command line warn.
            ensure!(!answer.metadata().contains_key("hubble-server-version"));
            Ok(answer.into_inner())
        })
    }

    pub(crate) fn nodes(&self) -> Result<Vec<Node>> {
        self.call(async |channel| {
            let mut client = ObserverClient::new(channel);
            let answer = client.get_nodes(GetNodesRequest {}).await?;
            Ok(answer.into_inner().nodes)
        })
    }

    /// With their clusters, in the order in which they come.
    pub(crate) fn namespaces(&self) -> Result<Vec<String>> {
        self.call(async |channel| {
            let mut client = ObserverClient::new(channel);
            let answer = client.get_namespaces(GetNamespacesRequest {}).await?;
            let namespaces = answer.into_inner().namespaces.into_iter();
            let named = namespaces.map(|it| format!("{}/{}", it.cluster, it.namespace));
            Ok(named.collect())
        })
    }

    /// The first peer, and whether more may come.
    pub(crate) fn peer(&self) -> Result<(ChangeNotification, bool)> {
        self.call(async |channel| {
            let mut client = PeerClient::new(channel);
            let mut stream = client.notify(NotifyRequest {}).await?.into_inner();
            let first = stream.message().await?.context("no peer")?;
            let is_open = timeout(MOMENT, stream.message()).await.is_err();
            Ok((first, is_open))
        })
    }

    /// `None` if it serves, else why not.
    pub(crate) fn health(&self, service: &str) -> Result<Option<Code>> {
        self.call(async |channel| {
            let request = HealthCheckRequest {
                service: service.to_owned(),
            };
            match HealthClient::new(channel).check(request).await {
                Ok(answer) => {
                    ensure!(answer.into_inner().status == 1, "not serving");
                    Ok(None)
                }
                Err(status) => Ok(Some(status.code())),
            }
        })
    }

    /// What both versions of reflection name.
    pub(crate) fn reflected(&self) -> Result<Vec<String>> {
        self.call(async |channel| {
            let mut named = Vec::new();
            let question = v1::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
                    String::new(),
                )),
            };
            let mut client =
                v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
            let asked = client.server_reflection_info(stream::iter([question]));
            let mut answers = asked.await?.into_inner();
            let answer = answers.message().await?.context("no answer")?;
            if let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(
                list,
            )) = answer.message_response
            {
                named.extend(list.service.into_iter().map(|it| it.name));
            }
            let question = v1alpha::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(
                    v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
                ),
            };
            let mut client =
                v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
            let asked = client.server_reflection_info(stream::iter([question]));
            let mut answers = asked.await?.into_inner();
            let answer = answers.message().await?.context("no answer")?;
            if let Some(
                v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list),
            ) = answer.message_response
            {
                named.extend(list.service.into_iter().map(|it| it.name));
            }
            Ok(named)
        })
    }

    /// What comes of a method that there is elsewhere.
    pub(crate) fn unknown(&self, method: &str) -> Result<Code> {
        let path: PathAndQuery = format!("/observer.Observer/{method}").parse()?;
        self.call(async move |channel| {
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await?;
            let codec: ProstCodec<ServerStatusRequest, ServerStatusResponse> =
                ProstCodec::default();
            let request = Request::new(ServerStatusRequest {});
            match client.server_streaming(request, path, codec).await {
                Ok(_) => Ok(Code::Ok),
                Err(status) => Ok(status.code()),
            }
        })
    }
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// `None` if it is none; losses and the like may come between.
fn flow(response: GetFlowsResponse) -> Result<Option<Flow>> {
    ensure!(response.node_name == "default/node-1", "{response:?}");
    ensure!(response.time.is_some(), "{response:?}");
    match response.response_types.context("an empty answer")? {
        ResponseTypes::Flow(flow) => Ok(Some(flow)),
        ResponseTypes::NodeStatus(_) | ResponseTypes::LostEvents(_) => Ok(None),
    }
}
