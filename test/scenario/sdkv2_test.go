package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/client"
	kms "github.com/alibabacloud-go/kms-20160120/v3/client"
	openapiutil "github.com/alibabacloud-go/openapi-util/service"
	util "github.com/alibabacloud-go/tea-utils/v2/service"
	"github.com/alibabacloud-go/tea/tea"
)

// sdkV2 calls KMS through the typed requests of kms-20160120, and RAM and STS
// through the generic client under it.
type sdkV2 struct {
	host      string
	algorithm *string // nil is ACS3-HMAC-SHA256; v2 is RPC v1
}

func (c sdkV2) Call(who Identity, step Step, params map[string]any) (Answer, error) {
	config := &openapi.Config{
		AccessKeyId: &who.ID, AccessKeySecret: &who.Secret, Endpoint: &c.host, Protocol: new("HTTP"),
		RegionId: &step.Region, SignatureAlgorithm: c.algorithm,
	}
	if who.Token != "" {
		config.SecurityToken, config.Type = &who.Token, new("sts")
	}
	runtime := &util.RuntimeOptions{ReadTimeout: new(30000)}
	answer, err := c.call(config, runtime, step, params)
	if err == nil {
		return answer, nil
	}
	var refused *tea.SDKError
	if !errors.As(err, &refused) || refused.StatusCode == nil {
		return Answer{}, err
	}
	return Answer{Status: *refused.StatusCode, Code: tea.StringValue(refused.Code)}, nil
}

func (c sdkV2) call(config *openapi.Config, runtime *util.RuntimeOptions, step Step, params map[string]any) (Answer, error) {
	if step.Product != "Kms" {
		return c.generic(config, runtime, step, params)
	}
	client, err := kms.NewClient(config)
	if err != nil {
		return Answer{}, err
	}
	method := reflect.ValueOf(client).MethodByName(step.Action + "WithOptions")
	if !method.IsValid() {
		return Answer{}, fmt.Errorf("the SDK has no %s", step.Action)
	}
	arguments := []reflect.Value{reflect.ValueOf(runtime)}
	if method.Type().NumIn() == 2 {
		request, err := fill(method.Type().In(0), params)
		if err != nil {
			return Answer{}, err
		}
		arguments = []reflect.Value{request, arguments[0]}
	}
	// The SDK's client puts no region into a request: other regions are found
	// by their host names. The region goes in as the parameter that every RPC
	// call may have.
	client.GlobalParameters = &openapi.GlobalParameters{Queries: map[string]*string{"RegionId": &step.Region}}
	results := method.Call(arguments)
	if err, _ := reflect.TypeAssert[error](results[1]); err != nil {
		return Answer{}, err
	}
	response := results[0].Elem()
	body, err := decoded(response.FieldByName("Body").Interface())
	return Answer{Status: int(response.FieldByName("StatusCode").Elem().Int()), Body: body}, err
}

// fill makes a typed request from parameters, whose names are those of its JSON.
func fill(kind reflect.Type, params map[string]any) (reflect.Value, error) {
	request := reflect.New(kind.Elem())
	data, err := json.Marshal(params)
	if err == nil {
		err = json.Unmarshal(data, request.Interface())
	}
	if err != nil {
		return reflect.Value{}, err
	}
	known, err := decoded(request.Interface())
	for name := range params {
		if _, ok := known[name]; !ok && err == nil {
			err = fmt.Errorf("the SDK has no parameter %s", name)
		}
	}
	return request, err
}

func (c sdkV2) generic(config *openapi.Config, runtime *util.RuntimeOptions, step Step, params map[string]any) (Answer, error) {
	client, err := openapi.NewClient(config)
	if err != nil {
		return Answer{}, err
	}
	query := map[string]any{}
	for name, value := range params {
		if query[name], err = asText(value); err != nil {
			return Answer{}, err
		}
	}
	result, err := client.CallApi(&openapi.Params{
		Action: &step.Action, Version: new(Versions[step.Product]), Protocol: new("HTTP"), Pathname: new("/"),
		Method: new("POST"), AuthType: new("AK"), Style: new("RPC"), ReqBodyType: new("formData"), BodyType: new("json"),
	}, &openapi.OpenApiRequest{Query: openapiutil.Query(query)}, runtime)
	if err != nil {
		return Answer{}, err
	}
	whole, err := decoded(result)
	status, _ := whole["statusCode"].(float64)
	body, _ := whole["body"].(map[string]any)
	return Answer{Status: int(status), Body: body}, err
}
