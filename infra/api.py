"""The HTTP API: routes to the stages that answer them, behind a key."""

import json
import re
from collections.abc import Sequence

from aws_cdk import Acknowledgment, Duration, RemovalPolicy, Stack, Validations
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_apigatewayv2_authorizers as authorizers
from aws_cdk import aws_apigatewayv2_integrations as integrations
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.watch import MINUTES_5, Watch

PUBLIC_PATHS = ("/status", "/status/live", "/status/ready", "/site-map")
"""What anybody may ask: that the service lives, and which routes it has."""

CALLED_PATHS = ("/h/{proxy+}", "/m/{proxy+}", "/c/{proxy+}", "/{proxy+}")
"""What pages call. A route for ANY method takes OPTIONS as well, and would refuse a browser that asks without a key.

Source: "Configure CORS for HTTP APIs with a $default route and an authorizer", API Gateway developer guide.
"""

ACCESS_LOG = {
    "request_id": "$context.requestId",
    "time": "$context.requestTime",
    "route": "$context.routeKey",
    "key": "$context.authorizer.key",
    "status": "$context.status",
    "authorizer_error": "$context.authorizer.error",
    "integration_error": "$context.integrationErrorMessage",
    "latency_ms": "$context.responseLatency",
    "answer_bytes": "$context.responseLength",
}
"""A line for each request: its route, never its path or query, which may hold a signal."""

MANY_SERVER_ERRORS = 5
"""Answers of 5xx within five minutes that raise an alarm."""


class Api(Construct):
    """The HTTP API of a deployment. Each route but the public ones asks the authorizer first.

    A key comes in either of two headers. An HTTP API refuses a request that lacks *any* of its authorizer's
    identity sources, and caches answers by identity sources alone; so with two headers there can be neither. The
    function answers from its own memory instead, for seconds: a key that is withdrawn is refused that soon.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        name: str,
        authorize: lambda_.IFunction,
        hash: lambda_.IFunction,
        match: lambda_.IFunction,
        curate: lambda_.IFunction,
        forward: lambda_.IFunction,
        cors_origins: Sequence[str],
        requests_per_second: int,
        burst_requests: int,
        log_retention: logs.RetentionDays,
        watch: Watch,
    ) -> None:
        """Make the API of that name; no `cors_origins` means that no page of another origin may call it."""
        super().__init__(scope, id)
        self._api = apigateway.HttpApi(
            self,
            "HttpApi",
            api_name=name,
            create_default_stage=False,
            cors_preflight=_cors(cors_origins),
            default_authorizer=authorizers.HttpLambdaAuthorizer(
                "Authorizer",
                authorize,
                response_types=[authorizers.HttpLambdaResponseType.SIMPLE],
                identity_source=[],
                results_cache_ttl=Duration.seconds(0),
            ),
        )
        self._answer_with(hash, "Hash", "/h/{proxy+}")
        self._answer_with(match, "Match", "/m/{proxy+}", "/openapi.json", "/openapi/{proxy+}")
        self._answer_with(curate, "Curate", "/c/{proxy+}")
        apigateway.HttpRoute(
            self,
            "ForwardRoute",
            http_api=self._api,
            integration=_DefaultIntegration(forward, self._api),
            route_key=apigateway.HttpRouteKey.DEFAULT,
        )
        self._answer_publicly(match, has_cors=bool(cors_origins))
        stage = apigateway.HttpStage(
            self,
            "Stage",
            http_api=self._api,
            stage_name="$default",
            auto_deploy=True,
            throttle=apigateway.ThrottleSettings(rate_limit=requests_per_second, burst_limit=burst_requests),
        )
        self._log_access(stage, log_retention)
        watch.alarm(
            self,
            "ServerErrorsAlarm",
            metric=self._api.metric_server_error(period=MINUTES_5, statistic=cloudwatch.Stats.SUM),
            threshold=MANY_SERVER_ERRORS,
            because="The HTTP API answers with errors of its own. The access log names the routes.",
        )
        self.url = self._api.api_endpoint

    def _answer_with(self, function: lambda_.IFunction, id: str, *paths: str) -> None:
        integration = _integration(function, id)
        for number, path in enumerate(paths):
            apigateway.HttpRoute(
                self,
                f"{id}{number or ''}Route",
                http_api=self._api,
                integration=integration,
                route_key=apigateway.HttpRouteKey.with_(path, apigateway.HttpMethod.ANY),
            )

    def _answer_publicly(self, function: lambda_.IFunction, *, has_cors: bool) -> None:
        """Answer the public paths, and what browsers ask before they call from a page of another origin."""
        integration = _integration(function, "Public")
        for path in PUBLIC_PATHS:
            self._open(
                path,
                apigateway.HttpMethod.GET,
                integration,
                because="Whether the service lives, and which routes it has, anybody may ask: load balancers do.",
            )
        for path in CALLED_PATHS if has_cors else ():
            self._open(
                path,
                apigateway.HttpMethod.OPTIONS,
                integration,
                because="A browser sends no key when it asks whether a page may call. API Gateway itself answers.",
            )

    def _open(
        self, path: str, method: apigateway.HttpMethod, integration: integrations.HttpLambdaIntegration, *, because: str
    ) -> None:
        name = "".join(part.capitalize() for part in re.findall("[a-z]+", path))
        route = apigateway.HttpRoute(
            self,
            f"{name}{method.value.capitalize()}Route",
            http_api=self._api,
            integration=integration,
            route_key=apigateway.HttpRouteKey.with_(path, method),
            authorizer=apigateway.HttpNoneAuthorizer(),
        )
        Validations.of(route).acknowledge(Acknowledgment(id="AwsSolutions-APIG4", reason=because))

    def _log_access(self, stage: apigateway.HttpStage, retention: logs.RetentionDays) -> None:
        log_group = logs.LogGroup(self, "AccessLog", retention=retention, removal_policy=RemovalPolicy.DESTROY)
        template = stage.node.default_child
        if not isinstance(template, apigateway.CfnStage):
            raise TypeError(f"a stage is a CfnStage inside, not {template!r}")
        template.access_log_settings = apigateway.CfnStage.AccessLogSettingsProperty(
            destination_arn=log_group.log_group_arn, format=json.dumps(ACCESS_LOG)
        )


class _DefaultIntegration(apigateway.HttpRouteIntegration):
    """Calls the function of the route `$default`, which has an ARN of another form than all other routes.

    It is `API/STAGE/$default`, with no method, so a permission for `API/*/*/*` does not cover it, and API Gateway
    answers 500. The CDK's own integration grants one for `API/*/*/*`, or for whatever the API calls with.
    Source: github.com/aws/serverless-application-model, issue 1860, where the ARN was found out on AWS.
    """

    def __init__(self, function: lambda_.IFunction, api: apigateway.HttpApi) -> None:
        super().__init__("Forward")
        self._function = function
        self._api = api

    def bind(self, *, route: apigateway.IHttpRoute, scope: Construct) -> apigateway.HttpRouteIntegrationConfig:
        """Grant the route that it may call the function, and return how it does."""
        lambda_.CfnPermission(
            scope,
            "Permission",
            action="lambda:InvokeFunction",
            function_name=self._function.function_arn,
            principal="apigateway.amazonaws.com",
            source_arn=Stack.of(route).format_arn(
                service="execute-api", resource=self._api.api_id, resource_name="*/$default"
            ),
        )
        return apigateway.HttpRouteIntegrationConfig(
            type=apigateway.HttpIntegrationType.AWS_PROXY,
            uri=self._function.function_arn,
            payload_format_version=apigateway.PayloadFormatVersion.VERSION_2_0,
        )


def _integration(function: lambda_.IFunction, id: str) -> integrations.HttpLambdaIntegration:
    return integrations.HttpLambdaIntegration(
        id,
        function,
        payload_format_version=apigateway.PayloadFormatVersion.VERSION_2_0,
        scope_permission_to_route=False,
    )


def _cors(origins: Sequence[str]) -> apigateway.CorsPreflightOptions | None:
    if not origins:
        return None
    return apigateway.CorsPreflightOptions(
        allow_origins=list(origins),
        allow_methods=[apigateway.CorsHttpMethod.ANY],
        allow_headers=["authorization", "content-type", "x-api-key"],
        # What an answer says of content that was not looked at, or only in part.
        expose_headers=["countermark-unhashable", "countermark-partial"],
        max_age=Duration.hours(1),
    )
