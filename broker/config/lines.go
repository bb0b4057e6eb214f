package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"

	"github.com/BurntSushi/toml"
)

// lines says on which line each key and each element of an array of tables
// stands, by path.
type lines map[string]int

// Paths separate their parts with bytes that no configuration needs, so that
// dots in quoted keys do no harm.
func keyPath(path, key string) string       { return path + "\x00" + key }
func elementPath(path string, i int) string { return fmt.Sprintf("%s\x01%d", path, i) }

// locate finds the lines of a document that decodes.
func locate(data []byte) lines {
	found := lines{}
	root, meta := primitives(data)
	for key, value := range root {
		found.add(meta, keyPath("", key), value)
		found.addElements(data, key)
	}
	return found
}

// add notes the line of a key and, if its value is a table, of all below it. A
// table that has no header of its own begins with its first key.
func (l lines) add(meta *toml.MetaData, path string, value toml.Primitive) {
	line := lineOf(meta, value)
	if table, ok := decodes[map[string]toml.Primitive](meta, value); ok {
		first := l.addTable(meta, path, table)
		line = cmp.Or(line, first)
	}
	l[path] = line
}

// addTable notes the lines of all keys of a table and returns the lowest.
func (l lines) addTable(meta *toml.MetaData, path string, table map[string]toml.Primitive) (first int) {
	for key, value := range table {
		below := keyPath(path, key)
		l.add(meta, below, value)
		if line := l[below]; first == 0 || line < first {
			first = line
		}
	}
	return first
}

// addElements notes the lines of the [[tables]] of one name, from the last to
// the first. The decoder keeps one position for each path and so knows the last
// table alone; the one before it is the last of what stands before its header.
func (l lines) addElements(data []byte, key string) {
	for {
		root, meta := primitives(data)
		elements, _ := decodes[[]map[string]toml.Primitive](meta, root[key])
		if len(elements) == 0 {
			return
		}
		header := lineOf(meta, root[key])
		path := elementPath(keyPath("", key), len(elements)-1)
		l[path] = header
		l.addTable(meta, path, elements[len(elements)-1])
		if header <= 1 {
			return
		}
		data = beginning(data, header-1)
	}
}

func primitives(data []byte) (map[string]toml.Primitive, *toml.MetaData) {
	var root map[string]toml.Primitive
	meta, err := toml.Decode(string(data), &root)
	if err != nil {
		return nil, &meta // a part of the document that is cut within a value
	}
	return root, &meta
}

func decodes[T any](meta *toml.MetaData, value toml.Primitive) (T, bool) {
	var v T
	err := meta.PrimitiveDecode(value, &v)
	return v, err == nil
}

// unwilling decodes nothing, so that the decoder says where it stood.
type unwilling struct{}

func (*unwilling) UnmarshalTOML(any) error { return errors.New("not this way") }

func lineOf(meta *toml.MetaData, value toml.Primitive) int {
	failure, _ := errors.AsType[toml.ParseError](meta.PrimitiveDecode(value, &unwilling{}))
	return failure.Position.Line
}

// beginning returns the first n lines of data.
func beginning(data []byte, n int) []byte {
	end := 0
	for range n {
		i := bytes.IndexByte(data[end:], '\n')
		if i < 0 {
			return data
		}
		end += i + 1
	}
	return data[:end]
}
