package emulator

import (
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

const (
	maxResourceIDs = 50
	tagRows        = 200 // per page of ListTagResources
)

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
	kind, err := c.params.OneOf("ResourceType", "key", "secret")
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
	if len(ids) == 0 {
		// Without keys it looks at all of them.
		if err := c.permit("key", nil); err != nil {
			return nil, err
		}
	}
	after, err := base64.RawURLEncoding.DecodeString(c.params["NextToken"])
	if err != nil {
		return nil, wire.InvalidParameter("NextToken")
	}
	rows := []taggedResource{}
	if kind == "key" {
		for _, k := range c.region.allKeys() {
			if len(ids) > 0 && !slices.Contains(ids, k.ID) {
				continue
			}
			if err := c.permitKey(k); len(ids) > 0 && err != nil {
				return nil, err
			}
			rows = append(rows, wanted.rows(k)...)
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

func tagResources(c *call) (any, error) {
	names, err := c.numbered("Tag", ".Key", maxTags)
	if err != nil {
		return nil, err
	}
	var tags []tag
	for n, name := range names {
		t := tag{name, c.params["Tag."+strconv.Itoa(n)+".Value"]}
		if !t.valid() || slices.ContainsFunc(tags, func(other tag) bool { return other.TagKey == name }) {
			return nil, wire.InvalidParameter("Tag")
		}
		tags = append(tags, t)
	}
	slices.SortFunc(tags, func(a, b tag) int { return strings.Compare(a.TagKey, b.TagKey) })
	return c.changeResources(func(k *key) error { return k.addTags(tags) })
}

// untagResources takes away the tags TagKey.N, or with All every tag.
func untagResources(c *call) (any, error) {
	numbered, err := c.numbered("TagKey", "", maxTags)
	if err != nil {
		return nil, err
	}
	all, err := c.params.Boolean("All")
	switch {
	case err != nil:
		return nil, err
	case len(numbered) == 0 && !all:
		return nil, wire.MissingParameter("TagKey.1")
	}
	names := slices.Collect(maps.Values(numbered))
	return c.changeResources(func(k *key) error {
		if len(names) == 0 {
			k.Tags = nil
		}
		k.removeTags(names)
		return nil
	})
}

// changeResources is change for the keys ResourceId.N: all of them change, or
// none.
func (c *call) changeResources(edit func(*key) error) (any, error) {
	kind, err := c.params.OneOf("ResourceType", "key", "secret")
	if err != nil {
		return nil, err
	}
	if kind != "key" {
		return nil, wire.ErrUnsupported
	}
	ids, err := c.numbered("ResourceId", "", maxResourceIDs)
	if err != nil {
		return nil, err
	}
	b := batch{keys: map[string]*key{}}
	for n := range ids {
		k, err := c.key("ResourceId."+strconv.Itoa(n), idOnly)
		if err != nil {
			return nil, err
		}
		k = k.clone()
		if err := edit(k); err != nil {
			return nil, err
		}
		b.keys[k.ID] = k
	}
	return nil, c.region.commit(b)
}
