package sqlstore

// PollParts are the queries inside a poll's statement, for tests of how they are run: of parameters
// ?1 (a device), ?2 and ?3 (JSON arrays of releases and rollouts).
func PollParts() []string { return []string{wantedDeployments, wantedUsage} }
