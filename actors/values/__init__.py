"""Values: requests, results, errors, status. Nothing here runs anything."""
