package emulator

type regionList struct {
	Regions struct {
		Region []regionEntry
	}
}

type regionEntry struct {
	RegionID string `json:"RegionId"`
}

func describeRegions(c *call) (any, error) {
	var list regionList
	for _, name := range c.server.names {
		list.Regions.Region = append(list.Regions.Region, regionEntry{name})
	}
	return list, nil
}

// openKmsService finds the service open, always.
func openKmsService(*call) (any, error) { return nil, errOpened }

func describeAccountKmsStatus(*call) (any, error) {
	return struct{ AccountStatus string }{"Enabled"}, nil
}
