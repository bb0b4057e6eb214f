package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"

	sdkerrors "github.com/aliyun/alibaba-cloud-sdk-go/sdk/errors"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/ram"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/sts"
)

// sdkV1 calls through the typed requests of alibaba-cloud-sdk-go.
type sdkV1 struct {
	host   string
	method string
}

// rpcRequest is what every typed request of the SDK is.
type rpcRequest interface {
	InitWithApiInfo(product, version, action, serviceCode, endpointType string)
	SetScheme(string)
}

func (c sdkV1) Call(who Identity, step Step, params map[string]any) (Answer, error) {
	client, err := c.client(who, step)
	if err != nil {
		return Answer{}, err
	}
	method := reflect.ValueOf(client).MethodByName(step.Action)
	if !method.IsValid() {
		return Answer{}, fmt.Errorf("the SDK has no %s", step.Action)
	}
	request := reflect.New(method.Type().In(0).Elem())
	rpc := &requests.RpcRequest{}
	request.Elem().FieldByName("RpcRequest").Set(reflect.ValueOf(rpc))
	request.Interface().(rpcRequest).InitWithApiInfo(step.Product, Versions[step.Product], step.Action, strings.ToLower(step.Product), "openAPI")
	rpc.Method, rpc.Domain, rpc.Scheme = c.method, c.host, "HTTP"
	for name, value := range params {
		if name == "RegionId" { // of the request, not of the operation
			rpc.RegionId = value.(string)
			continue
		}
		if err := setField(request.Elem(), name, value); err != nil {
			return Answer{}, err
		}
	}
	results := method.Call([]reflect.Value{request})
	if err, _ := reflect.TypeAssert[error](results[1]); err != nil {
		var refused *sdkerrors.ServerError
		if !errors.As(err, &refused) {
			return Answer{}, err
		}
		return Answer{Status: refused.HttpStatus(), Code: refused.ErrorCode()}, nil
	}
	body, err := decoded(results[0].Interface())
	status := results[0].Interface().(interface{ GetHttpStatus() int }).GetHttpStatus()
	return Answer{Status: status, Body: body}, err
}

// constructing is held while a client is made: each looks at a global that the
// first one fills.
var constructing sync.Mutex

// client is a new client: those of the SDK keep what a call set.
func (c sdkV1) client(who Identity, step Step) (any, error) {
	constructing.Lock()
	defer constructing.Unlock()
	if who.Token == "" {
		switch step.Product {
		case "Ram":
			return ram.NewClientWithAccessKey(step.Region, who.ID, who.Secret)
		case "Sts":
			return sts.NewClientWithAccessKey(step.Region, who.ID, who.Secret)
		}
		return kms.NewClientWithAccessKey(step.Region, who.ID, who.Secret)
	}
	if step.Product == "Sts" {
		return sts.NewClientWithStsToken(step.Region, who.ID, who.Secret, who.Token)
	}
	return kms.NewClientWithStsToken(step.Region, who.ID, who.Secret, who.Token)
}

// setField sets the field that stands for a parameter. The SDK carries nearly
// everything as text, and lists behind pointers.
func setField(request reflect.Value, name string, value any) error {
	for i := range request.NumField() {
		if request.Type().Field(i).Tag.Get("name") != name {
			continue
		}
		field := request.Field(i)
		list, isList := value.([]any)
		if !isList {
			text, err := asText(value)
			field.SetString(text)
			return err
		}
		elements := reflect.MakeSlice(field.Type().Elem(), len(list), len(list))
		for j, element := range list {
			object, isObject := element.(map[string]any)
			if !isObject {
				elements.Index(j).SetString(element.(string))
			}
			for part, partValue := range object {
				if err := setField(elements.Index(j), part, partValue); err != nil {
					return err
				}
			}
		}
		field.Set(reflect.New(elements.Type()))
		field.Elem().Set(elements)
		return nil
	}
	return fmt.Errorf("the SDK has no parameter %s", name)
}

// asText is a parameter as RPC carries it; an object is JSON.
func asText(value any) (string, error) {
	switch v := value.(type) {
	case map[string]any:
		data, err := json.Marshal(v)
		return string(data), err
	case float64:
		return fmt.Sprintf("%.0f", v), nil
	}
	return fmt.Sprint(value), nil
}

// decoded is what a client read of an answer, as JSON once more.
func decoded(response any) (map[string]any, error) {
	data, err := json.Marshal(response)
	if err != nil {
		return nil, err
	}
	var body map[string]any
	err = json.Unmarshal(data, &body)
	return body, err
}
