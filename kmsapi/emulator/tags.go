package emulator

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

const (
	maxTags        = 20
	maxTagText     = 128 // characters of a key, and of a value
	maxResourceIDs = 50
	tagRows        = 200 // per page of ListTagResources
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
		return nil, errUnsupported
	}
	return c.change(edit)
}

func tagResource(c *call) (any, error) {
	tags, err := parseTags(c.params["Tags"])
	if err != nil {
		return nil, err
	}
	return c.changeTags(func(k *key) error {
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
	})
}

func untagResource(c *call) (any, error) {
	var names []string
	if err := json.Unmarshal([]byte(c.params["TagKeys"]), &names); err != nil {
		return nil, wire.InvalidParameter("TagKeys")
	}
	return c.changeTags(func(k *key) error {
		k.Tags = slices.DeleteFunc(k.Tags, func(t tag) bool { return slices.Contains(names, t.TagKey) })
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

type taggedResources struct {
	TagResources struct {
		TagResource []taggedResource
	}
	NextToken string
}

type taggedResource struct {
	ResourceType string
	ResourceID   string `json:"ResourceId"`
	tag
}

// position orders rows; NextToken is that of the last row of a page, so that
// changes between two pages neither hide nor repeat other rows.
func (t taggedResource) position() string { return t.ResourceID + "\n" + t.TagKey }

// listTagResources finds the keys that carry all tags asked for, and lists those
// tags of them; all tags when it is asked for none.
func listTagResources(c *call) (any, error) {
	kind, err := c.oneOf("ResourceType", "key", "secret")
	if err != nil {
		return nil, err
	}
	wanted, err := c.tagFilter()
	if err != nil {
		return nil, err
	}
	numbered, err := c.numbered("ResourceId", "", maxResourceIDs)
	if err != nil {
		return nil, err
	}
	ids := slices.Collect(maps.Values(numbered))
	after, err := base64.RawURLEncoding.DecodeString(c.params["NextToken"])
	if err != nil {
		return nil, wire.InvalidParameter("NextToken")
	}
	rows := []taggedResource{}
	if kind == "key" {
		for _, k := range c.region.allKeys() {
			if len(ids) == 0 || slices.Contains(ids, k.ID) {
				rows = append(rows, wanted.rows(k)...)
			}
		}
	}
	return tagPage(rows, string(after)), nil
}

// tagPage returns the rows whose position is past after, as many as fit a page.
func tagPage(rows []taggedResource, after string) taggedResources {
	rows = slices.DeleteFunc(rows, func(row taggedResource) bool { return row.position() <= after })
	slices.SortFunc(rows, func(a, b taggedResource) int { return strings.Compare(a.position(), b.position()) })
	var answer taggedResources
	if len(rows) > tagRows {
		rows = rows[:tagRows]
		answer.NextToken = base64.RawURLEncoding.EncodeToString([]byte(rows[tagRows-1].position()))
	}
	answer.TagResources.TagResource = rows
	return answer
}

// tagFilter is the tags that ListTagResources was asked for: the wanted value of
// each key, nil for any.
type tagFilter map[string]*string

// tagFilter reads Tag.N.Key and Tag.N.Value.
func (c *call) tagFilter() (tagFilter, error) {
	names, err := c.numbered("Tag", ".Key", maxTags)
	if err != nil {
		return nil, err
	}
	values, err := c.numbered("Tag", ".Value", maxTags)
	if err != nil {
		return nil, err
	}
	wanted := tagFilter{}
	for n, name := range names {
		wanted[name] = nil
		if value, ok := values[n]; ok {
			wanted[name] = &value
		}
	}
	return wanted, nil
}

// rows lists the wanted tags of a key, none unless it has them all.
func (wanted tagFilter) rows(k *key) []taggedResource {
	var rows []taggedResource
	for _, t := range k.Tags {
		value, named := wanted[t.TagKey]
		if len(wanted) == 0 || named && (value == nil || *value == t.TagValue) {
			rows = append(rows, taggedResource{"key", k.ID, t})
		}
	}
	if len(rows) < len(wanted) {
		return nil
	}
	return rows
}

// numbered reads the parameters name.1 and so on, each followed by suffix.
func (c *call) numbered(name, suffix string, most int) (map[int]string, error) {
	values := map[int]string{}
	for param, value := range c.params {
		index, ok := strings.CutPrefix(param, name+".")
		if index, suffixed := strings.CutSuffix(index, suffix); ok && suffixed {
			n, err := strconv.Atoi(index)
			if err != nil || n < 1 || n > most {
				return nil, wire.InvalidParameter(name)
			}
			values[n] = value
		}
	}
	return values, nil
}
