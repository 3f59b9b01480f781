"""The HTTP API: it routes requests to the functions of the stages, and has their keys checked."""

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
"""The paths that need no key: they report whether the service is alive, and which routes it has."""

BROWSER_PATHS = ("/h/{proxy+}", "/m/{proxy+}", "/c/{proxy+}", "/{proxy+}")
"""The paths that web pages call. Each needs a separate route for OPTIONS.

A route for ANY method also receives OPTIONS. It would refuse a browser's preflight request, because that request
has no key.

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
"""The fields of a line in the access log. The path and the query are left out, because they can contain a signal."""

MANY_SERVER_ERRORS = 5
"""The number of 5xx answers within five minutes that raises an alarm."""


class Api(Construct):
    """The HTTP API of a deployment. Each route except the public ones calls the authorizer first.

    A request sends its key in either of two headers. An HTTP API refuses a request that lacks *any* of its authorizer's
    identity sources. So the two headers cannot be identity sources. Without identity sources, API Gateway caches no
    answers of the authorizer. Instead, the function caches keys for some seconds. A revoked key is refused after that
    time.
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
        """Create the API. If `cors_origins` is empty, web pages of other origins cannot call the API."""
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
        self._add_routes(hash, "Hash", "/h/{proxy+}")
        self._add_routes(match, "Match", "/m/{proxy+}", "/openapi.json", "/openapi/{proxy+}")
        self._add_routes(curate, "Curate", "/c/{proxy+}")
        apigateway.HttpRoute(
            self,
            "ForwardRoute",
            http_api=self._api,
            integration=_DefaultIntegration(forward, self._api),
            route_key=apigateway.HttpRouteKey.DEFAULT,
        )
        self._add_public_routes(match, has_cors=bool(cors_origins))
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
            because="The HTTP API answers with server errors (5xx). The access log names the routes.",
        )
        self.url = self._api.api_endpoint

    def _add_routes(self, function: lambda_.IFunction, id: str, *paths: str) -> None:
        integration = _integration(function, id)
        for number, path in enumerate(paths):
            apigateway.HttpRoute(
                self,
                f"{id}{number or ''}Route",
                http_api=self._api,
                integration=integration,
                route_key=apigateway.HttpRouteKey.with_(path, apigateway.HttpMethod.ANY),
            )

    def _add_public_routes(self, function: lambda_.IFunction, *, has_cors: bool) -> None:
        """Add the public routes, and routes for the preflight requests of browsers if `has_cors`."""
        integration = _integration(function, "Public")
        for path in PUBLIC_PATHS:
            self._add_public_route(
                path,
                apigateway.HttpMethod.GET,
                integration,
                because="Anyone may ask without a key if the service is alive and which routes it has.",
            )
        for path in BROWSER_PATHS if has_cors else ():
            self._add_public_route(
                path,
                apigateway.HttpMethod.OPTIONS,
                integration,
                because="A browser sends no key with a preflight request. API Gateway itself answers it.",
            )

    def _add_public_route(
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
            raise TypeError(f"the default child of a stage must be a CfnStage, not {template!r}")
        template.access_log_settings = apigateway.CfnStage.AccessLogSettingsProperty(
            destination_arn=log_group.log_group_arn, format=json.dumps(ACCESS_LOG)
        )


class _DefaultIntegration(apigateway.HttpRouteIntegration):
    """Calls a function from the route `$default`, whose ARN does not have the form of other routes' ARNs.

    The route's ARN is `API/STAGE/$default`, without a method. A permission for `API/*/*/*` does not include it, so API
    Gateway would answer 500. The CDK's integration can only grant a permission for `API/*/*/*`, or for all calls of
    the API.
    Source: github.com/aws/serverless-application-model, issue 1860, where the ARN was found by tests on AWS.
    """

    def __init__(self, function: lambda_.IFunction, api: apigateway.HttpApi) -> None:
        super().__init__("Forward")
        self._function = function
        self._api = api

    def bind(self, *, route: apigateway.IHttpRoute, scope: Construct) -> apigateway.HttpRouteIntegrationConfig:
        """Allow the route to call the function, and return the integration."""
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
        # These headers of an answer report content that was not examined, or was examined only in part.
        expose_headers=["countermark-unhashable", "countermark-partial"],
        max_age=Duration.hours(1),
    )
