"""What a command has to say: text for people, or one JSON document for programs.

Every kind of answer is a frozen value that knows both forms; docs/json.rst documents the second.
"""
