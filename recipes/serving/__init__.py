"""Where people and programs ask an adapter: the page in the browser, the service over HTTP."""
