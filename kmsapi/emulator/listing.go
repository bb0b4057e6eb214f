package emulator

import (
	"encoding/json"
	"slices"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

func listKeys(c *call) (any, error) {
	p, err := c.params.Page(1, 100)
	if err != nil {
		return nil, err
	}
	filters, err := parseFilters(c.params["Filters"])
	if err != nil {
		return nil, err
	}
	matching := slices.DeleteFunc(c.region.allKeys(), func(k *key) bool { return !filters.match(k) })
	list := wire.KeyList{Page: p}
	list.Keys.Key = []wire.KeyEntry{}
	for _, k := range wire.Cut(&list.Page, matching) {
		list.Keys.Key = append(list.Keys.Key, wire.KeyEntry{KeyID: k.ID, KeyArn: c.region.arn("key/" + k.ID)})
	}
	return list, nil
}

// filters is the parameter Filters of ListKeys. Values of one entry are
// alternatives; all entries must match.
type filters []struct {
	Key    string
	Values []string
}

const (
	maxFilters      = 10
	maxFilterValues = 10
)

func parseFilters(text string) (filters, error) {
	if text == "" {
		return nil, nil
	}
	var fs filters
	if err := json.Unmarshal([]byte(text), &fs); err != nil || len(fs) > maxFilters {
		return nil, wire.InvalidParameter("Filters")
	}
	for _, f := range fs {
		if _, known := filterValues[f.Key]; !known || len(f.Values) == 0 || len(f.Values) > maxFilterValues {
			return nil, wire.InvalidParameter("Filters")
		}
	}
	return fs, nil
}

// filterValues says what a filter looks at. No key here was made by a service.
var filterValues = map[string]func(*key) string{
	"KeyState":        func(k *key) string { return string(k.State) },
	"KeySpec":         func(*key) string { return specAES256 },
	"KeyUsage":        func(*key) string { return usageEncrypt },
	"ProtectionLevel": func(k *key) string { return k.ProtectionLevel },
	"CreatorType":     func(*key) string { return "User" },
	"DKMSInstanceId":  func(k *key) string { return k.Instance },
}

func (fs filters) match(k *key) bool {
	for _, f := range fs {
		if !slices.Contains(f.Values, filterValues[f.Key](k)) {
			return false
		}
	}
	return true
}
