"""A collector built on the messages that the OpenTelemetry project publishes.

Usage: collector.py FILE [BUSY]

Takes OTLP logs and metrics at 127.0.0.1, over HTTP at port 4318 and over gRPC at 4317, and appends each log record, and each
metric, to FILE as a line of JSON. The first BUSY requests for logs over each are turned away as by a collector that has too
much to do.
"""

import gzip
import json
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as service_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_service_grpc
from opentelemetry.proto.logs.v1 import logs_pb2 as logs
from opentelemetry.proto.metrics.v1 import metrics_pb2 as metrics

OUT = open(sys.argv[1], "a", encoding="utf-8")
BUSY = int(sys.argv[2]) if len(sys.argv) > 2 else 0
LOCK = threading.Lock()
TURNED_AWAY = {"http": 0, "grpc": 0}


def is_busy(over):
    with LOCK:
        TURNED_AWAY[over] += 1
        return TURNED_AWAY[over] <= BUSY


def of_any(value):
    kind = value.WhichOneof("value")
    return kind, getattr(value, kind)


def attributes(pairs):
    told = {}
    for pair in pairs:
        if pair.key in told:
            raise ValueError("twice: " + pair.key)
        told[pair.key] = of_any(pair.value)
    return told


def understand(request):
    """Whoever sends what the messages do not have is not understood."""
    bare = type(request)()
    bare.CopyFrom(request)
    bare.DiscardUnknownFields()
    if bare.ByteSize() != request.ByteSize():
        raise ValueError("fields that no message has")


def keep_metrics(request, over):
    understand(request)
    lines = []
    for of_resource in request.resource_metrics:
        for of_scope in of_resource.scope_metrics:
            for metric in of_scope.metrics:
                kind = metric.WhichOneof("data")
                data = getattr(metric, kind)
                if kind != "gauge" and data.aggregation_temporality != metrics.AGGREGATION_TEMPORALITY_CUMULATIVE:
                    raise ValueError("not cumulative: " + metric.name)
                lines.append(json.dumps({
                    "metric_over": over,
                    "resource": attributes(of_resource.resource.attributes),
                    "name": metric.name,
                    "unit": metric.unit,
                    "kind": kind,
                    "monotonic": kind == "sum" and data.is_monotonic,
                    "points": [point(kind, it) for it in data.data_points],
                }))
    write(lines)


def point(kind, it):
    if kind == "histogram":
        if len(it.bucket_counts) != len(it.explicit_bounds) + 1 or sum(it.bucket_counts) != it.count:
            raise ValueError("buckets that do not add up")
        return {"count": it.count, "sum": it.sum}
    value = it.as_int if it.WhichOneof("value") == "as_int" else it.as_double
    return {"attributes": attributes(it.attributes), "value": value}


def write(lines):
    with LOCK:
        OUT.write("".join(line + "\n" for line in lines))
        OUT.flush()


def keep(request, over):
    understand(request)
    lines = []
    for of_resource in request.resource_logs:
        for of_scope in of_resource.scope_logs:
            for record in of_scope.log_records:
                lines.append(json.dumps({
                    "over": over,
                    "resource": attributes(of_resource.resource.attributes),
                    "scope": of_scope.scope.name,
                    "event": record.event_name,
                    "severity": logs.SeverityNumber.Name(record.severity_number),
                    "severity_text": record.severity_text,
                    "time": record.time_unix_nano,
                    "observed": record.observed_time_unix_nano,
                    "body": of_any(record.body),
                    "attributes": attributes(record.attributes),
                    "dropped": record.dropped_attributes_count,
                }))
    write(lines)


class Over(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/logs" and is_busy("http"):
            return self.answer(503, b"")
        try:
            if self.headers["content-type"] != "application/x-protobuf":
                raise ValueError("not protobuf")
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/logs":
                keep(service.ExportLogsServiceRequest.FromString(body), "http")
            elif self.path == "/v1/metrics":
                keep_metrics(metrics_service.ExportMetricsServiceRequest.FromString(body), "http")
            else:
                raise ValueError(self.path)
        except Exception as error:
            print(error, file=sys.stderr, flush=True)
            return self.answer(400, b"")
        self.answer(200, service.ExportLogsServiceResponse().SerializeToString())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Called(service_grpc.LogsServiceServicer):
    def Export(self, request, context):
        if is_busy("grpc"):
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        try:
            keep(request, "grpc")
        except Exception as error:
            print(error, file=sys.stderr, flush=True)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return service.ExportLogsServiceResponse()


class CalledWithMetrics(metrics_service_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        try:
            keep_metrics(request, "grpc")
        except Exception as error:
            print(error, file=sys.stderr, flush=True)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return metrics_service.ExportMetricsServiceResponse()


called = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
service_grpc.add_LogsServiceServicer_to_server(Called(), called)
metrics_service_grpc.add_MetricsServiceServicer_to_server(CalledWithMetrics(), called)
called.add_insecure_port("127.0.0.1:4317")
called.start()
ThreadingHTTPServer(("127.0.0.1", 4318), Over).serve_forever()
