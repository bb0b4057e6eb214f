package emulator

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

const (
	maxTags    = 20
	maxTagText = 128 // characters of a key, and of a value
)

// tag is a name and a value attached to a key.
type tag struct {
	TagKey   string
	TagValue string
}

func (t tag) valid() bool {
	return t.TagKey != "" && !strings.HasPrefix(t.TagKey, "aliyun") && !strings.HasPrefix(t.TagKey, "acs:") &&
		utf8.RuneCountInString(t.TagKey) <= maxTagText && utf8.RuneCountInString(t.TagValue) <= maxTagText
}

// parseTags reads the parameter Tags, [{"TagKey":"a","TagValue":"b"}], where no
// key may come twice.
func parseTags(text string) ([]tag, error) {
	if text == "" {
		return nil, nil
	}
	var tags []tag
	if err := json.Unmarshal([]byte(text), &tags); err != nil || len(tags) > maxTags {
		return nil, wire.InvalidParameter("Tags")
	}
	seen := map[string]bool{}
	for _, t := range tags {
		if !t.valid() || seen[t.TagKey] {
			return nil, wire.InvalidParameter("Tags")
		}
		seen[t.TagKey] = true
	}
	return tags, nil
}

// changeTags is change for the operations that can also name a secret or a
// certificate, of which there are none here.
func (c *call) changeTags(edit func(*key) error) (any, error) {
	if c.params["SecretName"] != "" || c.params["CertificateId"] != "" {
		return nil, wire.ErrUnsupported
	}
	return c.change(edit)
}

func tagResource(c *call) (any, error) {
	tags, err := parseTags(c.params["Tags"])
	if err != nil {
		return nil, err
	}
	return c.changeTags(func(k *key) error { return k.addTags(tags) })
}

// addTags sets tags, over others of the same keys.
func (k *key) addTags(tags []tag) error {
	for _, t := range tags {
		i := slices.IndexFunc(k.Tags, func(old tag) bool { return old.TagKey == t.TagKey })
		if i >= 0 {
			k.Tags[i] = t
		} else {
			k.Tags = append(k.Tags, t)
		}
	}
	if len(k.Tags) > maxTags {
		return errLimitExceeded
	}
	return nil
}

func (k *key) removeTags(names []string) {
	k.Tags = slices.DeleteFunc(k.Tags, func(t tag) bool { return slices.Contains(names, t.TagKey) })
}

func untagResource(c *call) (any, error) {
	var names []string
	if err := json.Unmarshal([]byte(c.params["TagKeys"]), &names); err != nil {
		return nil, wire.InvalidParameter("TagKeys")
	}
	return c.changeTags(func(k *key) error {
		k.removeTags(names)
		return nil
	})
}

type resourceTags struct {
	Tags struct {
		Tag []keyTag
	}
}

type keyTag struct {
	KeyID string `json:"KeyId"`
	tag
}

func listResourceTags(c *call) (any, error) {
	k, err := c.key("KeyId", idOnly)
	if err != nil {
		return nil, err
	}
	list := resourceTags{}
	list.Tags.Tag = []keyTag{}
	for _, t := range k.Tags {
		list.Tags.Tag = append(list.Tags.Tag, keyTag{k.ID, t})
	}
	return list, nil
}
